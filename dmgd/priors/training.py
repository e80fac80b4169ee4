"""Training a DiT: examples, a step, the loop that survives interruption."""

import copy
import hashlib
import io
import math
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from dmgd.diffusion.schedule import training_alpha_bar
from dmgd.display import duration
from dmgd.errors import ArtifactError, DmgdError, is_out_of_memory
from dmgd.files import write_bytes
from dmgd.priors.dit import DiT, DiTConfig
from dmgd.priors.recipe import Recipe, TrainingConfig
from dmgd.progress import Progress

CHECKPOINT_SECONDS = 60.0
LABEL_DROPOUT = 0.1
EMA = 0.9995  # the decay of the averaged weights at most; earlier, they average the last tenth of the steps
WARMUP = 100  # steps
RECENT = 100  # steps whose mean loss is reported
HELD_IMAGES, HELD_NOISES = 256, 2  # of the held-out loss


@dataclass(frozen=True)
class Examples:
    """Images `values` (n, c, h, w), as uint8 pixels or as latents in half precision, and their class indices `labels`
    (n,); on the CPU."""

    values: Shaped[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.values)

    def clean(self, rows: Int64[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
        """x_0 of these rows, float32; pixels in [−1, 1]."""
        chosen = self.values[rows]
        return chosen.float().div(127.5).sub(1) if chosen.dtype == torch.uint8 else chosen.float()


def new_network(shape: DiTConfig, seed: int) -> DiT:
    """A network to be trained: every block is the identity at first (adaLN-Zero).

    The label table has deviation 1. With the original's 0.02, a thousand steps do not tell the classes apart.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DiT(shape)
    zero = [network.final_modulation, network.final, *(block.modulation for block in network.blocks)]
    for layer in zero:
        nn.init.zeros_(layer.weight)  # type: ignore[union-attr, arg-type]
        nn.init.zeros_(layer.bias)  # type: ignore[union-attr, arg-type]
    return network


@dataclass
class Training:
    """The state of a training after `step` steps and `seconds`. What a step draws depends on the seed and its number
    alone, so that a training that was interrupted ends as if it had not been. `average` is what is kept."""

    network: DiT
    recipe: Recipe
    examples: Examples
    held: Examples
    flip: bool
    seed: int
    step: int = 0
    seconds: float = 0.0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))

    def __post_init__(self) -> None:
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), self.recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self.device = self.network.position.device
        alpha_bar = torch.from_numpy(training_alpha_bar()).to(self.device, torch.float32)
        self.alpha, self.sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        # The weight of the loss of ε at every timestep: min(SNR, cap) / SNR.
        ratio = alpha_bar / (1 - alpha_bar)
        self.weight = ratio.clamp_max(self.recipe.snr_cap or math.inf) / ratio
        self.uses_bf16 = self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)

    @property
    def loss(self) -> float:
        """The mean loss of the last steps."""
        return sum(self.recent) / max(len(self.recent), 1)

    def take_step(self, done: float) -> None:
        """Take the next step of a training of which the fraction `done` is over. Raises DmgdError for a loss that is
        NaN or infinite, before anything is changed."""
        draw = _generator(f"{self.seed}/{self.step}")
        rows = torch.randint(len(self.examples), (self.recipe.batch,), generator=draw)
        x0, labels = self.examples.clean(rows), self.examples.labels[rows]
        if self.flip:
            mirrored = torch.rand(len(rows), generator=draw) < 0.5
            x0 = torch.where(mirrored[:, None, None, None], x0.flip(3), x0)
        dropped = torch.rand(len(rows), generator=draw) < LABEL_DROPOUT
        labels = torch.where(dropped, self.network.config.num_classes, labels)
        loss = self._losses(self.network, x0, labels, draw, weight=self.weight).mean()
        if not math.isfinite(value := loss.item()):
            raise DmgdError(f"the loss is {value} after {self.step} steps of training; try another --seed")
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        rate = min(1.0, (self.step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * done))
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * rate
        self.optimizer.step()
        decay = min(EMA, (self.step + 1) / (self.step + 10))
        torch._foreach_lerp_([*self.average.parameters()], [one.data for one in self.network.parameters()], 1 - decay)
        self.recent.append(value)
        self.step += 1

    @torch.no_grad()
    def held_out_loss(self) -> float | None:
        """The mean squared error of ε of the averaged network on images that are not trained on, over all noise levels
        and with the same noise every time; None if there are none."""
        if not len(self.held):
            return None
        draw = _generator("held out")
        rows = torch.randperm(len(self.held), generator=draw)[:HELD_IMAGES].repeat(HELD_NOISES)
        losses = [
            self._losses(self.average, self.held.clean(part), self.held.labels[part], draw)
            for part in rows.split(self.recipe.batch)
        ]
        return torch.cat(losses).mean().item()

    def _losses(
        self,
        network: DiT,
        x0: Float[Tensor, "b c h w"],
        labels: Int64[Tensor, " b"],
        draw: torch.Generator,
        weight: Float[Tensor, " t"] | None = None,
    ) -> Float[Tensor, " b"]:
        """The squared error of ε of each image, weighted; the timesteps are spread evenly over the batch."""
        noise, count = torch.randn(x0.shape, generator=draw), len(x0)
        t = ((torch.arange(count) + torch.rand((), generator=draw)) / count * len(self.alpha)).long()
        x0, noise, labels, t = (one.to(self.device) for one in (x0, noise, labels, t))
        z = self.alpha[t, None, None, None] * x0 + self.sigma[t, None, None, None] * noise
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.uses_bf16):
            predicted = network(z, t[:, None].float(), network.label_embedding(labels))
        losses = (predicted.float() - noise).square().mean((1, 2, 3))
        return losses if weight is None else losses * weight[t]

    def save(self, path: Path) -> None:
        """Write the state to a file, atomically."""
        numbers = {"step": self.step, "seconds": self.seconds, "recent": [*self.recent]}
        content = io.BytesIO()  # of a full disk, torch itself would say something else
        torch.save({name: part.state_dict() for name, part in self._parts().items()} | numbers, content)
        write_bytes(path, content.getvalue())

    def load(self, path: Path) -> None:
        """Continue from the state in a file. Raises ArtifactError if it is damaged."""
        try:
            kept = torch.load(path, weights_only=True, map_location=self.device)
            for name, part in self._parts().items():
                part.load_state_dict(kept[name])
            self.step, self.seconds = kept["step"], kept["seconds"]
            self.recent.extend(kept["recent"])
        except Exception as error:  # torch raises a dozen types for a damaged file
            if is_out_of_memory(error):
                raise
            raise ArtifactError(f"{path} is damaged; remove it to start the training anew") from error

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {"network": self.network, "average": self.average, "optimizer": self.optimizer}


def _generator(text: str) -> torch.Generator:
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big"))


def train(training: Training, config: TrainingConfig, checkpoint: Path, progress: Progress) -> None:
    """Take the steps that are left. The state is in `checkpoint` every minute and, if this is interrupted, at the
    end; an earlier one is continued."""
    if checkpoint.is_file():
        training.load(checkpoint)
        progress.note(f"continuing after {training.step:,} steps ({duration(training.seconds)})")
    total, unit = (config.steps, "steps") if config.steps else (round((config.minutes or 0) * 60), "s")
    started, before = time.perf_counter(), training.seconds
    saved, shown = started, 0
    # Steps are taken in a thread: an interruption is raised in this one, so that every step is taken whole.
    with ThreadPoolExecutor(1) as worker, progress.task("train", total, unit) as task:
        try:
            while (done := config.done(training.step, training.seconds)) < 1:
                worker.submit(training.take_step, done).result()
                now = time.perf_counter()
                training.seconds = before + now - started
                reached = min(training.step if config.steps else int(training.seconds), total)
                if reached > shown:
                    task.advance(reached - shown)
                    shown = reached
                task.describe(f"step {training.step}, loss {training.loss:.4f}")
                if now - saved >= CHECKPOINT_SECONDS:
                    training.save(checkpoint)
                    progress.note(said(training))
                    saved = time.perf_counter()
        except BaseException as stopped:
            if not isinstance(stopped, Exception):  # an interruption, not an error in a step
                worker.shutdown()
                training.save(checkpoint)
            raise
    training.save(checkpoint)


def said(training: Training) -> str:
    """The losses so far, in words."""
    held = training.held_out_loss()
    return f"step {training.step}: loss {training.loss:.4f}" + ("" if held is None else f", held-out {held:.4f}")
