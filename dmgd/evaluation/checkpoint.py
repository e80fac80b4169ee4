"""The state of an unfinished training in a file, so that one that was killed goes on and ends with the same weights."""

import io
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dmgd.errors import ArtifactError, is_out_of_memory
from dmgd.files import write_bytes
from dmgd.priors.training import CHECKPOINT_SECONDS


@dataclass
class Reached:
    """Where a training is: after `step` steps and `seconds`, with the `losses` of the steps of its unfinished epoch and
    the `curve` of those before."""

    step: int = 0
    losses: list[Tensor] = field(default_factory=list)
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    seconds: float = 0.0


class Minutes:
    """Says when it is time to keep what is done."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def is_over(self) -> bool:
        """Whether a minute is over since it was last, or since the beginning."""
        now = time.perf_counter()
        if over := now - self._last >= CHECKPOINT_SECONDS:
            self._last = now
        return over


class Checkpoint:
    """The state of the training that `asked` describes, in the file `path`, written every minute. What a step draws
    depends on its number alone, so no generator is kept."""

    def __init__(self, path: Path, asked: dict[str, Any]):
        self._path, self._asked, self._minutes = path, asked, Minutes()

    def asked(self) -> dict[str, Any] | None:
        """What was asked of the training in the file; None if there is none. Raises ArtifactError if it is damaged."""
        return self._read()["asked"] if self._path.is_file() else None

    def is_due(self) -> bool:
        """Whether a minute is over."""
        return self._minutes.is_over()

    def restored(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> Reached:
        """Where the training is that the file has, whose network and optimiser are put into these; the beginning, if
        there is none. Raises ArtifactError if it is damaged."""
        if not self._path.is_file():
            return Reached()
        kept = self._read()
        try:
            network.load_state_dict(kept["network"])
            optimizer.load_state_dict(kept["optimizer"])
            losses = [loss.to(next(network.parameters()).device) for loss in kept["losses"]]
            return Reached(kept["step"], losses, kept["curve"], kept["seconds"])
        except (KeyError, ValueError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise self._damaged() from error

    def keep(self, reached: Reached, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write the state, atomically."""
        content = io.BytesIO()
        parts = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**parts, **vars(reached), "asked": self._asked}, content)
        write_bytes(self._path, content.getvalue())

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        try:
            return torch.load(self._path, weights_only=True, map_location="cpu")
        except Exception as error:  # torch raises a dozen types for a damaged file
            if is_out_of_memory(error):
                raise
            raise self._damaged() from error

    def _damaged(self) -> ArtifactError:
        return ArtifactError(f"{self._path} is damaged; remove it to start the training anew")
