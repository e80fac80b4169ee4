"""How many images the network sees at a time: as many as fill the device and fit its memory."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dmgd.diffusion.condition import Condition
from dmgd.diffusion.guidance import Denoised, Denoiser
from dmgd.diffusion.schedule import Step
from dmgd.errors import DmgdError, is_out_of_memory
from dmgd.priors.prior import Prior
from dmgd.progress import SILENT, Progress

# Patches of a batch that fill a device: on CPUs what stays in the cache, measured with the digits
# (benchmarks/sampling_speed.py); on GPUs reasoned: an H200 is nine tenths as fast with an eighth of it.
FULL = {"cpu": 320, "cuda": 1 << 16}
MEMORY_SHARE = 0.8
# Pixels that the autoencoder sees at a time, and images at most: it needs far more memory for each than the network.
DECODED, DECODED_IMAGES = 16 * 256**2, 16
PROBED = (4, 8)  # images of the two network calls whose peak memory is measured

Rows = TypeVar("Rows")


def suitable_batch(prior: Prior) -> int:
    """The batch size that fills the prior's device, and on a GPU fits in its memory: measured by two small calls of the
    network, from which the peak grows linearly with the batch. The same on every such device."""
    device = prior.device
    filling = max(1, FULL.get(device.type, FULL["cpu"]) // prior.tokens)
    if device.type != "cuda":
        return filling
    total = torch.cuda.get_device_properties(device).total_memory

    def peak(images: int) -> int:
        torch.cuda.reset_peak_memory_stats(device)
        z = torch.zeros(2 * images, *prior.latent_shape, device=device)
        with torch.no_grad():
            prior.denoise(z, prior.schedule(2, "ddpm")[0], prior.null_condition(2 * images))
        return torch.cuda.max_memory_allocated(device)

    return min(filling, fitting(peak, int(MEMORY_SHARE * total)))


def fitting(peak: Callable[[int], int], memory: int) -> int:
    """The largest power of two of images whose peak memory stays below `memory`, in bytes; at least 1.

    `peak` is assumed to grow linearly with the images. It is called twice for each of PROBED: the first call of a
    size also allocates workspaces that stay.
    """
    few, more = PROBED
    small, large = ((peak(images), peak(images))[1] for images in PROBED)
    each = max(1.0, (large - small) / (more - few))
    most = (memory - small + few * each) / each
    return 1 << int(math.log2(max(1.0, most)))


@dataclass
class MicroBatcher:
    """Work on many rows, at most `rows` at a time; half as many from then on whenever memory runs out."""

    rows: int
    progress: Progress = SILENT

    def run(self, work: Callable[..., Rows], *inputs: Any) -> Rows:
        """`work` of the inputs (tensors, conditions), done in equal parts of their rows and put together again: a
        tensor, or several of which some may be None.

        Raises DmgdError if there is not even memory for a single row.
        """
        while True:
            try:
                count = math.ceil(len(inputs[0]) / self.rows)
                parts = zip(*(whole.tensor_split(count) for whole in inputs), strict=True)
                return _joined([work(*part) for part in parts])
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            self._halve()  # outside of the handler, which keeps the failed call's tensors alive

    def _halve(self) -> None:
        if self.rows == 1:
            raise DmgdError("there is not enough memory for a single image; use a smaller prior or another --device")
        self.rows //= 2
        torch.cuda.empty_cache()
        self.progress.warn(f"memory ran out; going on with {self.rows} rows at a time")


def _joined(parts: list[Any]) -> Any:
    """The rows of several results, one after another."""
    if isinstance(parts[0], tuple):
        return tuple(_joined(list(column)) for column in zip(*parts, strict=True))
    return None if parts[0] is None else torch.cat(parts)


def micro_batched(denoise: Denoiser, images: int, progress: Progress = SILENT) -> Denoiser:
    """The denoiser that is given the rows of at most `images` images at a time, two each: conditional and null."""
    batcher = MicroBatcher(2 * images, progress)

    def denoised(z: Float[Tensor, "b c h w"], step: Step, condition: Condition) -> Denoised:
        return batcher.run(lambda some, conditions: denoise(some, step, conditions), z, condition)

    return denoised


def decode(prior: Prior, latents: Float[Tensor, "b z y x"], progress: Progress = SILENT) -> UInt8[Tensor, "b h w c"]:
    """The uint8 images of latents, on the CPU, decoded a few at a time."""
    few = max(1, min(DECODED_IMAGES, DECODED // prior.image_size**2))
    return MicroBatcher(few, progress).run(lambda some: prior.decode(some).cpu(), latents)
