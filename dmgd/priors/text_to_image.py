"""Priors that are told classes by prompts: diffusers' text-to-image pipelines.

Prompts are encoded once per class, by text encoders that are loaded for it and then freed; they and the network are
never loaded together, except to fuse a LoRA, which may change both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from json import dumps
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dmgd.classes.info import ClassInfo
from dmgd.diffusion.condition import Condition
from dmgd.diffusion.guidance import Denoised
from dmgd.diffusion.process import Process
from dmgd.diffusion.schedule import Schedule, Step
from dmgd.errors import listed
from dmgd.priors.pipeline_parts import PipelineParts, said_in_one_line
from dmgd.priors.prior import Prior
from dmgd.priors.prompts import Prompts
from dmgd.progress import SILENT, Progress

SHOWN, LONGEST = 3, 80  # prompts in a note or a warning, and the characters of each


@dataclass(kw_only=True, repr=False)
class TextToImagePrior(Prior):
    """`side` is that of the latents. Every class has a prompt, so that there is no class table. `lora` is the digest of
    a LoRA that is fused into the weights."""

    pipeline: PipelineParts
    network: Any  # a network of diffusers, whose config is known at run time only
    process: Process
    side: int
    prompts: Prompts
    lora: str | None = None
    _encoded: dict[str | None, Condition] = field(default_factory=dict)  # of one row, on the CPU; None: the null

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.network.config.in_channels, self.side, self.side

    @property
    def tokens(self) -> int:
        return (self.side // getattr(self.network.config, "patch_size", 1)) ** 2

    def schedule(self, steps: int, solver: str) -> Schedule:
        return self.process.schedule(steps, solver)

    def match_classes(self, classes: Sequence[ClassInfo]) -> tuple[ClassInfo, ...]:
        """The classes as they are: there is no table that could lack one."""
        return tuple(ClassInfo(info.name, info.wnid) for info in classes)

    def prepare(self, classes: Sequence[ClassInfo], progress: Progress = SILENT) -> None:
        self.prompts.check(classes)
        prompts = [self.prompts.of_class(info) for info in classes]
        progress.note(f"prompts: {_shown(prompts)}")
        if unclear := self.prompts.unclear(classes):
            progress.warn(
                f"{len(unclear)} of {len(classes)} classes have names that are no words, of which the prompts are "
                f"{_shown(unclear)}; say what they show with --prompts FILE or "
                "--class-map FILE"
            )
        self._encode(prompts, progress)

    def condition(self, classes: Sequence[ClassInfo]) -> Condition:
        """The embeddings of each class's prompt."""
        prompts = [self.prompts.of_class(info) for info in classes]
        self._encode(prompts)
        return self._rows(prompts)

    def null_condition(self, count: int) -> Condition:
        """The embeddings of the negative prompt, `count` times."""
        self._encode([])
        return self._rows([None] * count)

    def denoise(self, z: Float[Tensor, "b c h w"], step: Step, condition: Condition) -> Denoised:
        network, dtype = self.network, self.pipeline.dtype
        rows = {name: one.to(dtype) for name, one in condition.embeddings.items()} | dict(condition.fixed)
        inputs = self.pipeline.family.inputs(network, rows, self.image_size)
        time = torch.full((len(z),), step.timestep, device=z.device)
        if scale := getattr(network.config, "timestep_scale", None):  # Sana's
            time = time * scale
        x = self.process.network_input(z, step).to(dtype)
        with said_in_one_line(f"the network of {self.pipeline.folder} cannot be called"):
            output = network(x, timestep=time, return_dict=False, **inputs)[0]
            return self.process.denoised(z, output.float(), step)

    def settings(self) -> dict[str, Any]:
        config = {key: value for key, value in dict(self.network.config).items() if not key.startswith("_")}
        return {
            "pipeline": self.pipeline.name,
            "network": sha256(dumps(config, sort_keys=True, default=str).encode()).hexdigest(),
            "encoding": self.pipeline.encoding,
            "diffusion": self.process.to_json(),
            "size": self.image_size,
            "prompts": self.prompts.to_json(),
            "lora": self.lora,
        }

    def _rows(self, prompts: Sequence[str | None]) -> Condition:
        return Condition.cat(*(self._encoded[prompt] for prompt in prompts)).to(self.device)

    def _encode(self, prompts: Sequence[str], progress: Progress = SILENT) -> None:
        """Encode those of the prompts, and the negative one, that are not encoded yet."""
        missing = [prompt for prompt in dict.fromkeys([None, *prompts]) if prompt not in self._encoded]
        if not missing:
            return
        with (
            self.pipeline.text_encoders(self.device) as encode,
            progress.task("encode prompts", len(missing), "prompts") as task,
        ):
            cut: dict[str, int] = {}
            for prompt in missing:
                self._encoded[prompt], limit = encode(prompt, self.prompts.negative)
                if limit:
                    cut[prompt or self.prompts.negative or ""] = limit
                task.advance()
        if cut:
            progress.warn(
                f"{len(cut)} of {len(missing)} prompts are cut after {max(cut.values())} tokens: {_shown(list(cut))}"
            )


def _shown(prompts: Sequence[str]) -> str:
    return listed([repr(one if len(one) <= LONGEST else f"{one[: LONGEST - 1]}…") for one in prompts], SHOWN)
