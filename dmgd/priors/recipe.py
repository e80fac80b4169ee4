"""How a prior is trained: what a user may say, and what follows from the data. Standard library only."""

from dataclasses import dataclass

from dmgd.config import check_settings, setting
from dmgd.errors import UsageError

PIXELS = 32  # the largest side at which a small network learns pixels; above, it learns an autoencoder's latents
LATENT_PIXELS = 256  # the largest side by default with an autoencoder
MINUTES = 20.0
PATCHES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class TrainingConfig:
    """What `train-prior` is asked for: for how long, by `minutes` or `steps` (neither: 20 minutes), the image side
    `size` in pixels (None: by the data), an autoencoder `vae` (a folder or Hub id; None: pixels), and whether mirror
    images are added (`flip`; None: if they look like images of the data)."""

    minutes: float | None = setting(None, above=0)
    steps: int | None = setting(None, at_least=1)
    size: int | None = setting(None, at_least=4, at_most=2048)
    vae: str | None = None
    flip: bool | None = None
    seed: int = setting(0, at_least=0)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.minutes and self.steps:
            raise UsageError("give either minutes or steps, not both")
        if not (self.minutes or self.steps):
            object.__setattr__(self, "minutes", MINUTES)
        if self.size and self.size > PIXELS and not self.vae:
            raise UsageError(
                f"size {self.size} is too large for a prior of pixels; take at most {PIXELS}, or train in the latents "
                "of an autoencoder: --vae FOLDER or Hub id, such as madebyollin/taesd"
            )

    @property
    def is_long(self) -> bool:
        """Whether more than an hour, or as many steps as that would be, are asked for."""
        return (self.minutes or 0) > 60 or (self.steps or 0) > 5_000

    def done(self, step: int, seconds: float) -> float:
        """The completed fraction of the training after so many steps and seconds."""
        return min(1.0, step / self.steps if self.steps else seconds / 60 / (self.minutes or MINUTES))


@dataclass(frozen=True)
class Recipe:
    """The shape of a DiT and how it is trained. `snr_cap` bounds the weight of a noise level in the loss of x̂_0 (Hang
    et al. 2023, "Min-SNR"; None: the plain loss of ε), so that a short training learns shapes before texture."""

    depth: int
    heads: int
    head_width: int
    patch: int
    batch: int
    learning_rate: float
    snr_cap: float | None

    @property
    def width(self) -> int:
        return self.heads * self.head_width


def recipe_for(side: int, images: int, config: TrainingConfig, *, on_gpu: bool) -> Recipe:
    """The recipe for latents of this `side` (pixels, if there is no autoencoder), by the number of images, the time
    and the device.

    | for | network | why |
    |---|---|---|
    | up to 8 | 6 × 128, batch 64 | 16 patches: a thousand steps take minutes on one core |
    | more, up to an hour | 6 × 144, batch 64 | up to 64 patches; the number of steps matters more than the width |
    | up to 16, longer; GPUs | 6 × 256, batch 64 | a slower rate, too; measured on latents of 16 × 16 for two hours |
    | more than 16, longer | 6 × 160, batch 64 | half the time of a step of 256; under 8 MB in half precision |
    | GPUs, 5,000 images or more | 12 × 384 (DiT-S), batch 256 | fewer images would be learned by heart |

    Without Min-SNR, samples of photographs at 32 pixels were black and white areas after 645 steps, with it they had
    their classes' colours.
    """
    snr_cap = 5.0
    if side <= 8:
        return Recipe(6, 4, 32, patch_of(side), 64, 2e-3, None)
    if on_gpu and images >= 5_000:
        return Recipe(12, 6, 64, patch_of(side, 16), 256, 5e-4, snr_cap)
    if config.is_long and side > 16 and not on_gpu:
        return Recipe(6, 4, 40, patch_of(side), 64, 1e-3, snr_cap)
    if on_gpu or config.is_long:
        return Recipe(6, 4, 64, patch_of(side), 64, 6e-4, snr_cap)
    return Recipe(6, 3, 48, patch_of(side), 64, 1e-3, snr_cap)


def patch_of(side: int, grid: int = 8) -> int:
    """The side of a patch, a power of two and at least 2 from a side of 8 on, with which there are at most
    `grid` × `grid` patches."""
    return next(patch for patch in PATCHES if side <= patch * grid and (patch > 1 or side < 8))


def usable_size(wanted: int, factor: int) -> int:
    """The largest image side up to `wanted` whose latents, `factor` times smaller, can be cut into patches."""
    sides = (size // factor for size in range(wanted, factor - 1, -1) if size % factor == 0)
    return next((side * factor for side in sides if side % patch_of(side) == 0), 0)
