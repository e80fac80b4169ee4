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
