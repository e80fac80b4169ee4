"""The settings of a teacher and of the labels that it gives. Standard library only."""

from dataclasses import dataclass, replace

from dmgd.config import check_settings, setting
from dmgd.errors import UsageError
from dmgd.evaluation.protocols import PROBE, Protocol, chosen_protocol

LEAST_EPOCHS = 30  # of a teacher, unless --epochs says otherwise


@dataclass(frozen=True)
class TeacherConfig:
    """What `train-teacher` trains: a `network` (None: the protocol's) by a `protocol` of hard labels, on images of
    `size` pixels (None: the protocol's), for so many `epochs` (None: the protocol's, but at least LEAST_EPOCHS)."""

    network: str | None = None
    protocol: str = "quick"
    epochs: int | None = setting(None, at_least=1)
    size: int | None = setting(None, at_least=4)
    seed: int = setting(0, at_least=0)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.chosen().loss == "soft":
            raise UsageError(f"a teacher learns from hard labels, and {self.protocol} has soft ones; take quick")
        if self.network == PROBE:
            raise UsageError("the probe is no network that can teach; give --network a network, such as resnet-18")

    def chosen(self) -> Protocol:
        """The protocol with the overrides. Raises UsageError for an unknown protocol."""
        return chosen_protocol(self.protocol, self.size, self.epochs, self.network)

    def long_enough(self, protocol: Protocol) -> Protocol:
        """The resolved protocol with at least LEAST_EPOCHS, unless the epochs were given."""
        return protocol if self.epochs else replace(protocol, epochs=max(protocol.epochs or 1, LEAST_EPOCHS))


@dataclass(frozen=True)
class RelabelConfig:
    """What `relabel` stores: logits of every image, or of `views` augmented views of it, drawn by `seed` with the
    augmentation of the `protocol` at `size` pixels (None: the teacher's size, or else the protocol's); in 16 or 8
    `bits`, the `top_k` largest (None: all). `network` is that of a checkpoint (None: the protocol's). With `tiles`
    above 1 the images are the parts of mosaics of tiles × tiles; None: as the set is stored."""

    views: int = setting(0, at_least=0)
    top_k: int | None = setting(None, at_least=1)
    bits: int = 16
    protocol: str = "rded-soft"
    network: str | None = None
    size: int | None = setting(None, at_least=4)
    seed: int = setting(0, at_least=0)
    tiles: int | None = setting(None, at_least=1)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.bits not in (16, 8):
            raise UsageError(f"bits must be 16 or 8, not {self.bits}")
        self.chosen(None)

    def chosen(self, teacher_size: int | None) -> Protocol:
        """The protocol with the overrides, at the teacher's size if there is none. Raises UsageError for an unknown
        protocol."""
        return chosen_protocol(self.protocol, self.size or teacher_size, None, self.network)
