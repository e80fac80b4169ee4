"""A few plain samples of a prior, to be looked at."""

from collections.abc import Sequence

from numpy import ndarray

from dmgd.classes.info import ClassInfo
from dmgd.diffusion.guidance import Guidance
from dmgd.diffusion.noise import SeededNoise
from dmgd.diffusion.sampler import sample
from dmgd.priors.prior import Prior
from dmgd.progress import Progress

ROWS, COLUMNS, STEPS = 10, 8, 20


def plain_samples(
    prior: Prior, classes: Sequence[ClassInfo], seed: int, progress: Progress
) -> dict[tuple[int, int], ndarray]:
    """uint8 (h, w, c) samples by row and column: a row for each of the first classes, with classifier-free guidance of
    the prior's own scale."""
    found: dict[tuple[int, int], ndarray] = {}
    shown = prior.match_classes(classes)[:ROWS]
    guidance = Guidance(prior.defaults.guidance_scale, prior.defaults.guided_channels)
    with progress.task("sample", len(shown), "classes") as task:
        for row, info in enumerate(shown):
            images = _of_class(prior, info, range(seed + row * COLUMNS, seed + (row + 1) * COLUMNS), guidance)
            found |= {(row, column): image for column, image in enumerate(images)}
            task.advance()
    return found


def _of_class(prior: Prior, info: ClassInfo, seeds: range, guidance: Guidance) -> ndarray:
    """uint8 (n, h, w, c), a sample for each seed."""
    noise = SeededNoise(seeds, prior.latent_shape, prior.device)
    conditions = prior.condition([info] * len(seeds)), prior.null_condition(len(seeds))
    schedule = prior.schedule(STEPS, "dpm++")
    latents, _ = sample(prior.denoise, schedule, noise, lambda step: conditions, guidance=guidance)
    return prior.decode(latents).cpu().numpy()
