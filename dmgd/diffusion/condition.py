"""What a network is conditioned on: a bundle of tensors that only the prior understands."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """Tensors by name, each with a row for every image. `embeddings` stand for a class and can be blended with others
    (a row of a label table, prompt embeddings); `fixed` ones cannot (attention masks, size ids)."""

    embeddings: Mapping[str, Tensor]
    fixed: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.embeddings.values())))

    def blend(self, mix: Callable[..., Tensor], *others: "Condition") -> "Condition":
        """The condition whose every embedding is `mix` of its own and those of `others`."""
        mixed = {name: mix(own, *(other.embeddings[name] for other in others)) for name, own in self.embeddings.items()}
        return Condition(mixed, self.fixed)

    def tensor_split(self, parts: int) -> list["Condition"]:
        """The rows in `parts` of about equal size, as tensors split."""

        def split(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
            pieces = {name: tensor.tensor_split(parts) for name, tensor in tensors.items()}
            return [{name: piece[i] for name, piece in pieces.items()} for i in range(parts)]

        return [Condition(*pair) for pair in zip(split(self.embeddings), split(self.fixed), strict=True)]

    @staticmethod
    def cat(*conditions: "Condition") -> "Condition":
        """The rows of several conditions, one after another."""

        def joined(bundles: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
            return {name: torch.cat([bundle[name] for bundle in bundles]) for name in bundles[0]}

        return Condition(joined([c.embeddings for c in conditions]), joined([c.fixed for c in conditions]))
