"""From the name a user types to a `Prior`: embedded, on the Hub, a local folder or a checkpoint file."""

from dataclasses import dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import torch

from dmgd.classes.info import ClassInfo
from dmgd.errors import ArtifactError, UsageError, unknown_choice
from dmgd.files import sha256_file
from dmgd.priors.checkpoints import Numerics, description_path, load_diffusers_dit, load_original_dit, read_config
from dmgd.priors.codec import AutoencoderCodec, Codec, NoCodec, PixelCodec
from dmgd.priors.dit import DiT
from dmgd.priors.prior import Encoder, Prior, PriorDefaults, PriorIdentity
from dmgd.priors.weights import digest_of, fetch, weight_files

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CHECKPOINT_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")


@dataclass(frozen=True)
class Description:
    """What a prior's weights do not say. A prior may bring its own as `dmgd.json` (folder) or `NAME.dmgd.json` (file).

    `classes` are the rows of the label table in order: names, or {"name", "wnid"} objects; without them they are the
    ImageNet classes if there are 1,000, else only numbered. `vae` is a folder or Hub id.
    """

    id: str | None = None
    numerics: Numerics | None = None
    guidance_scale: float = 4.0
    guided_channels: int | None = None
    num_heads: int | None = None
    vae: str | None = None
    classes: list[Any] | None = None


_FACEBOOK = {"numerics": "original", "guidance_scale": 4.0, "guided_channels": 3}
PUBLISHED = {
    "dit-xl-2-256": ("facebook/DiT-XL-2-256", Description(id="dit-xl-2-256", **_FACEBOOK)),  # type: ignore[arg-type]
    "dit-xl-2-512": ("facebook/DiT-XL-2-512", Description(id="dit-xl-2-512", **_FACEBOOK)),  # type: ignore[arg-type]
}
NAMES = ("digits", *PUBLISHED)
ENCODERS = {"taesd": "madebyollin/taesd"}


def load_prior(
    name: str, *, vae: str | None = None, precision: Precision = "fp32", device: torch.device | str = "cpu"
) -> Prior:
    """The prior called `name`: `digits` (embedded), `dit-xl-2-256`, `dit-xl-2-512`, a Hub id, a folder in diffusers'
    DiT layout (a pipeline's, or a transformer's alone), or an original-format checkpoint file.

    `vae` (a folder or Hub id) replaces the codec that the prior brings; "none" does without one: the prior then samples
    latents, but neither encodes nor decodes images. `precision` is the network's; the rest of the
    sampler and the codec compute in float32.

    Raises UsageError for a name that is none of these, ArtifactError for weights that are damaged or cannot be had.
    """
    if precision not in PRECISIONS:
        raise unknown_choice("precision", precision, tuple(PRECISIONS))
    path, revision, given = _locate(name)
    described = _read_description(path) or given
    network, numerics, weights = _load_network(path, described)
    codec, codec_weights = _load_codec(path, vae or described.vae, network, device)
    identity = PriorIdentity(
        id=described.id or (name if revision else Path(name).name),
        revision=revision,
        digest=digest_of([weights, *codec_weights]),
        numerics=numerics,
    )
    return Prior(
        identity=identity,
        classes=_classes(described, network.config.num_classes),
        defaults=PriorDefaults(described.guidance_scale, described.guided_channels),
        network=network.to(device, PRECISIONS[precision]).eval().requires_grad_(False),
        codec=codec,
        device=torch.device(device),
    )


def _locate(name: str) -> tuple[Path, str | None, Description]:
    """Where the weights of `name` are on this machine (fetched from the Hub if need be), their revision, and what the
    tool itself knows of them."""
    if name == "digits":
        return Path(str(files("dmgd.priors") / "digits")), None, Description()
    if (path := Path(name).expanduser()).exists():
        if path.is_file() and path.suffix not in CHECKPOINT_SUFFIXES:
            raise UsageError(f"the prior {name} is a file, but not a checkpoint ({', '.join(CHECKPOINT_SUFFIXES)})")
        return path, None, Description()
    for short, (hub_id, description) in PUBLISHED.items():
        if name in (short, hub_id):
            return *fetch(hub_id), description
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not path.suffix:
        return *fetch(name), Description()
    if "/" in name or path.suffix in CHECKPOINT_SUFFIXES:
        raise UsageError(f"the prior {name} does not exist; give a folder, a checkpoint or one of {', '.join(NAMES)}")
    raise unknown_choice("prior", name, (*NAMES, "a folder", "a checkpoint", "a Hub id"))


def _read_description(path: Path) -> Description | None:
    """The prior's own description, or None. Raises ArtifactError for one with unknown fields."""
    place = description_path(path)
    if not place.is_file():
        return None
    content = read_config(place)
    known = {field.name for field in fields(Description)}
    if unknown := sorted(set(content) - known):
        raise ArtifactError(f"{place} has unknown fields {', '.join(unknown)} (known: {', '.join(sorted(known))})")
    return Description(**{**content, "guidance_scale": float(content.get("guidance_scale", 4.0))})


def _load_network(path: Path, described: Description) -> tuple[DiT, str, Path]:
    if path.is_file():
        return load_original_dit(path, described.num_heads), "original", path
    folder = path / "transformer" if (path / "transformer").is_dir() else path
    return load_diffusers_dit(folder, described.numerics)


def _load_codec(path: Path, vae: str | None, network: DiT, device: Any) -> tuple[Codec, list[Path]]:
    """The codec and its weight files. `vae` names a folder or a Hub id; without it the prior's own is taken."""
    if vae == "none":
        return NoCodec(), []
    if vae is not None:
        folder = Path(vae).expanduser() if Path(vae).expanduser().is_dir() else fetch(vae, "vae")[0]
    elif (path / "vae").is_dir():
        folder = path / "vae"
    elif network.config.in_channels in (1, 3):
        return PixelCodec(network.config.in_channels, device), []
    else:
        raise ArtifactError(
            f"the prior {path} works in latents of {network.config.in_channels} channels but brings no autoencoder; "
            "give --vae a folder or Hub id, for example stabilityai/sd-vae-ft-ema"
        )
    weights = weight_files(folder)
    return AutoencoderCodec(folder, device), weights[-1:]


def _classes(described: Description, count: int) -> tuple[ClassInfo, ...]:
    """The rows of the label table. Raises ArtifactError if the description has another number of them."""
    listed = described.classes
    if listed is None:
        from dmgd.classes.imagenet import imagenet_classes

        return imagenet_classes() if count == 1000 else tuple(ClassInfo(f"class {i}") for i in range(count))
    if len(listed) != count:
        raise ArtifactError(f"the prior's description lists {len(listed)} classes, its label table has {count}")
    return tuple(ClassInfo(entry) if isinstance(entry, str) else ClassInfo(**entry) for entry in listed)


def with_encoder(prior: Prior, name: str) -> Prior:
    """`prior` with the encoder `name`: "taesd" (Stable Diffusion's latents), an autoencoder's folder or its Hub id.

    Raises UsageError if its latents have another shape than the prior's.
    """
    local = Path(name).expanduser()
    folder = local if local.is_dir() else fetch(ENCODERS.get(name, name), "encoder")[0]
    codec = AutoencoderCodec(folder, prior.device)
    size = prior.network.config.sample_size * codec.factor
    shape = tuple(codec.encode(torch.zeros(1, size, size, 3, dtype=torch.uint8)).shape[1:])
    if shape != prior.latent_shape or codec.image_channels != prior.codec.image_channels:
        raise UsageError(
            f"the encoder {name} gives latents of {shape}, but the prior {prior.identity.id!r} works in "
            f"{prior.latent_shape}; taesd is for priors in Stable Diffusion's latent space"
        )
    weights = weight_files(folder)
    if not weights:
        raise ArtifactError(f"no weights in {folder}")
    return replace(prior, encoder=Encoder(ENCODERS.get(name, folder.name), sha256_file(weights[-1]), codec))
