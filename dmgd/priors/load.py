"""From the name a user types to a `Prior`: embedded, on the Hub, a local folder or a checkpoint file."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from dmgd.classes.imagenet import imagenet_classes
from dmgd.classes.info import ClassInfo
from dmgd.errors import ArtifactError, UsageError, unknown_choice
from dmgd.files import sha256_bytes
from dmgd.priors.checkpoints import load_diffusers_dit, load_original_dit
from dmgd.priors.codec import AutoencoderCodec, Codec, NoCodec, PixelCodec
from dmgd.priors.description import (
    Description,
    check_classes,
    description_path,
    family_of,
    local_path,
    prior_names,
    published_prior,
    read_description,
)
from dmgd.priors.dit import DiT
from dmgd.priors.dit_prior import DiTPrior
from dmgd.priors.prior import Encoder, Prior, PriorDefaults, PriorIdentity
from dmgd.priors.scheduler import read_process
from dmgd.priors.weights import fetch, weight_files, weights_digest
from dmgd.specs import NO_VAE, PriorSpec

PRECISIONS: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CHECKPOINT_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
ENCODERS = {"taesd": "madebyollin/taesd"}


def load_prior(
    prior: PriorSpec | Path | str,
    *,
    vae: str | None = None,
    encoder: str | None = None,
    precision: str | None = None,
    revision: str | None = None,
    device: torch.device | str = "auto",
) -> Prior:
    """The prior of a spec or a name: `digits` (embedded), `dit-xl-2-256`, `dit-xl-2-512`, a Hub id, a folder in
    diffusers' DiT layout (a pipeline's, or a transformer's alone), or an original-format checkpoint file.

    `vae` (a folder or Hub id) replaces the prior's own codec; with "none" the prior samples latents, but neither
    encodes nor decodes images. `encoder` replaces the codec for encoding, see `with_encoder`. `precision` is the
    network's, see `settled_precision`; sampler and codec compute in float32. `revision` is a commit or branch on the
    Hub. `device`: see `torch_device`. Arguments override the spec.

    Raises UsageError for an unknown name, ArtifactError for weights that are damaged or cannot be downloaded.
    """
    spec = PriorSpec.of(prior, vae=vae, encoder=encoder, precision=precision, revision=revision).located()
    device = torch_device(device)
    spec = replace(spec, precision=settled_precision(spec.precision, device))
    family = family_of(spec.name)
    loaded = family.load(spec, device) if family else _load_dit(spec, device)
    return with_encoder(loaded, spec.encoder) if spec.encoder else loaded


def _load_dit(spec: PriorSpec, device: torch.device) -> Prior:
    path, commit, given = _locate(spec)
    described = read_description(path, given)
    network, numerics, weights = _load_network(path, described)
    channels = network.config.in_channels
    if (described.guided_channels or 0) > channels:
        file = description_path(path)
        raise ArtifactError(f"{file}: guided_channels is {described.guided_channels}, its latents have {channels}")
    codec, codec_weights = _load_codec(path, spec.vae or described.vae, channels, device)
    identity = PriorIdentity(
        id=described.id or (spec.name if commit else Path(spec.name).name),
        revision=commit,
        digest=sha256_bytes("".join(map(weights_digest, (weights, *codec_weights))).encode()),
        numerics=numerics,
    )
    return DiTPrior(
        spec=replace(spec, revision=commit),
        identity=identity,
        classes=_classes(path, described, network.config.num_classes),
        defaults=PriorDefaults(described.guidance_scale, described.guided_channels),
        codec=codec,
        device=device,
        network=network.to(device, PRECISIONS[spec.precision]).eval().requires_grad_(False),
        process=read_process(path),
    )


def as_prior(prior: Prior | PriorSpec | str, device: torch.device | str, classes: Sequence[ClassInfo] = ()) -> Prior:
    """`prior` itself, loaded onto `device` first if it is a spec or a name. Raises MismatchError if it lacks one of the
    `classes`, before its weights are downloaded if its class table is known without them."""
    if isinstance(prior, Prior):
        return prior
    check_classes(PriorSpec.of(prior), classes)
    return load_prior(prior, device=device)


def torch_device(name: torch.device | str) -> torch.device:
    """The device; "auto" is the GPU if there is one. Raises UsageError for a device that this machine lacks."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"the device {name!r} cannot be used ({str(error).splitlines()[0]}); try --device cpu"
        ) from error
    return torch.device(name)


def settled_precision(precision: str, device: torch.device) -> str:
    """The precision; "auto" is bf16 on a GPU that has it, and fp32 elsewhere."""
    if precision != "auto":
        return precision
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "fp32"


def _locate(spec: PriorSpec) -> tuple[Path, str | None, Description]:
    """The local path of the weights (downloaded if needed), their commit, and the built-in description."""
    name, suffix = spec.name, Path(spec.name).suffix
    if path := local_path(name):
        if path.is_file() and suffix not in CHECKPOINT_SUFFIXES:
            raise UsageError(f"the prior {name} is a file, but not a checkpoint ({', '.join(CHECKPOINT_SUFFIXES)})")
        if spec.revision:
            raise UsageError(
                f"the prior {name} is local and has no revision {spec.revision}; only priors on the Hub have one"
            )
        return path, None, Description()
    hub_id, described = published_prior(name) or (name, Description())
    if hub_id.count("/") == 1 and not hub_id.startswith((".", "/", "~")) and not suffix:
        return *fetch(hub_id, revision=spec.revision), described
    if "/" in name or suffix in CHECKPOINT_SUFFIXES:
        raise UsageError(
            f"the prior {name} does not exist; give a folder, a checkpoint or one of {', '.join(prior_names())}"
        )
    raise unknown_choice("prior", name, (*prior_names(), "a folder", "a checkpoint", "a Hub id"))


def _load_network(path: Path, described: Description) -> tuple[DiT, str, list[Path]]:
    if path.is_file():
        return load_original_dit(path, described.num_heads), "original", [path]
    folder = path / "transformer" if (path / "transformer").is_dir() else path
    return load_diffusers_dit(folder, described.numerics)


def _load_codec(path: Path, vae: str | None, channels: int, device: torch.device) -> tuple[Codec, list[list[Path]]]:
    """The codec and the files of its weights, if it has any. `vae` is a folder or Hub id; None: the prior's own."""
    if vae == NO_VAE:
        return NoCodec(), []
    if vae is None and (path / "vae").is_dir():
        vae = str(path / "vae")
    if vae is not None:
        autoencoder, weights = _load_autoencoder(vae, "vae", device)
        return autoencoder, [weights]
    if channels in (1, 3):
        return PixelCodec(channels, device), []
    raise ArtifactError(
        f"the prior {path} works in latents of {channels} channels but has no autoencoder; "
        "give --vae a folder or Hub id, for example stabilityai/sd-vae-ft-ema"
    )


def _load_autoencoder(name: str, kind: str, device: torch.device) -> tuple[AutoencoderCodec, list[Path]]:
    """The autoencoder in a folder or on the Hub, and the files of its weights."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder, _ = fetch(name, kind)
    return AutoencoderCodec(folder, device), weight_files(folder)


def _classes(path: Path, described: Description, count: int) -> tuple[ClassInfo, ...]:
    """The rows of the label table. Raises ArtifactError if the description lists another number of classes."""
    listed = described.classes
    if listed is None:
        return imagenet_classes() if count == 1000 else tuple(ClassInfo(f"class {i}") for i in range(count))
    if len(listed) != count:
        raise ArtifactError(
            f"the prior's description or id2label lists {len(listed)} classes, its label table has {count}; list them "
            f"in {description_path(path)}"
        )
    return listed


def with_encoder(prior: Prior, name: str) -> Prior:
    """`prior` with the encoder `name`: "taesd" (Stable Diffusion's latents), an autoencoder's folder or Hub id.

    Raises UsageError if the shape of its latents is not the prior's.
    """
    codec, weights = _load_autoencoder(ENCODERS.get(name, name), "encoder", prior.device)
    size = prior.latent_shape[1] * codec.factor
    shape = tuple(codec.encode(torch.zeros(1, size, size, 3, dtype=torch.uint8)).shape[1:])
    if shape != prior.latent_shape or codec.image_channels != prior.codec.image_channels:
        raise UsageError(
            f"the encoder {name} gives latents of {shape}, but the prior {prior.identity.id!r} works in "
            f"{prior.latent_shape}; taesd is for priors in Stable Diffusion's latent space"
        )
    encoder = Encoder(ENCODERS.get(name, weights[0].parent.name), weights_digest(weights), codec)
    return replace(prior, spec=replace(prior.spec, encoder=name).located(), encoder=encoder)
