"""Filling a network with tensors from a file: what does not fit, or is no number, is refused by name."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dmgd.errors import listed

Names = Mapping[str, tuple[str, ...]]
Shape = tuple[int, ...]


class Misfit(NamedTuple):
    """A tensor of a file that is not as the network needs it: its shape, None if it is missing, and the one wanted,
    None if the network has no such tensor."""

    name: str
    found: Shape | None
    wanted: Shape | None

    def __str__(self) -> str:
        if self.found is None:
            return f"{self.name} is missing"
        return f"{self.name} is {self.found}, not {self.wanted}" if self.wanted else f"{self.name} is unexpected"


def misfits(network: nn.Module, state: Mapping[str, Tensor], names: Names) -> list[Misfit]:
    """All tensors of `state` that are missing, unexpected or misshapen.

    `names` lists, for each tensor of the network, its names in `state`: its parts along the first dimension. Buffers
    that the network computes itself may be missing.
    """
    own = network.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in (dict(network.named_buffers()) | own).items()}
    wanted = {
        part: (shapes[name][0] // len(parts), *shapes[name][1:]) if shapes[name] else ()
        for name, parts in names.items()
        for part in parts
        if name in own or part in state
    }
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    every = [*wanted, *(name for name in found if name not in wanted)]
    return [Misfit(name, found.get(name), wanted.get(name)) for name in every if found.get(name) != wanted.get(name)]


def fill(network: nn.Module, state: Mapping[str, Tensor], names: Names) -> None:
    """Replace the weights of `network`, which may be on the device "meta", by the tensors of `state`, in float32.

    Raises ValueError, naming them, for tensors that do not fit (see `misfits`) or are not finite numbers.
    """
    if not any(part in state for parts in names.values() for part in parts):
        raise ValueError(f"it has none of its tensors, but {listed(sorted(state), 3)}")
    if wrong := misfits(network, state, names):
        raise ValueError(listed([*map(str, wrong)], 3))
    if bad := [name for name, one in state.items() if not (one.is_floating_point() and one.float().isfinite().all())]:
        raise ValueError(f"not all numbers are finite in {listed(bad, 3)}")
    whole = {name: [state[part].float() for part in names[name]] for name in network.state_dict()}
    joined = {name: parts[0] if len(parts) == 1 else torch.cat(parts) for name, parts in whole.items()}
    network.load_state_dict(joined, assign=True)
