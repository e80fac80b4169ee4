"""What a network is conditioned on: a bundle of tensors that only the prior understands."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """Tensors by name, each with a row for every image. `embeddings` stand for a class and can be blended with others
    (a row of a label table, prompt embeddings); `fixed` ones cannot (attention masks, size ids). `units` (b,) are the
    deviations of embeddings, in which noise for them is measured; 1 where there is none, as of label tables."""

    embeddings: Mapping[str, Tensor]
    fixed: Mapping[str, Tensor] = field(default_factory=dict)
    units: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.embeddings.values())))

    def blend(self, mix: Callable[..., Tensor], *others: "Condition") -> "Condition":
        """The condition whose every embedding is `mix` of its own and those of `others`. Of fixed tensors the larger
        numbers stay, so that a mask covers the tokens of all."""
        mixed = {name: mix(own, *(other.embeddings[name] for other in others)) for name, own in self.embeddings.items()}
        fixed = dict(self.fixed)
        for other in others:
            fixed |= {name: torch.maximum(fixed[name], also) for name, also in other.fixed.items()}
        return replace(self, embeddings=mixed, fixed=fixed)

    def noise(self, draw: Callable[[Tensor], Tensor]) -> "Condition":
        """Noise for every embedding, as `draw` makes it for a tensor like that, in the embedding's unit; without fixed
        tensors, so that it leaves those of what it is blended with."""

        def in_unit(name: str, noise: Tensor) -> Tensor:
            unit = self.units.get(name)
            return noise if unit is None else noise * unit.reshape(-1, *[1] * (noise.ndim - 1))

        return Condition({name: in_unit(name, draw(own)) for name, own in self.embeddings.items()})

    def tensor_split(self, parts: int) -> list["Condition"]:
        """The rows in `parts` of about equal size, as tensors split."""

        def split(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
            pieces = {name: tensor.tensor_split(parts) for name, tensor in tensors.items()}
            return [{name: piece[i] for name, piece in pieces.items()} for i in range(parts)]

        return [Condition(*three) for three in zip(*map(split, (self.embeddings, self.fixed, self.units)), strict=True)]

    def to(self, device: torch.device | str) -> "Condition":
        """The condition on a device."""
        bundles = (self.embeddings, self.fixed, self.units)
        return Condition(*({name: one.to(device) for name, one in bundle.items()} for bundle in bundles))

    @staticmethod
    def cat(*conditions: "Condition") -> "Condition":
        """The rows of several conditions, one after another."""

        def joined(bundles: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
            return {name: torch.cat([bundle[name] for bundle in bundles]) for name in bundles[0]}

        bundles = ([c.embeddings for c in conditions], [c.fixed for c in conditions], [c.units for c in conditions])
        return Condition(*map(joined, bundles))
