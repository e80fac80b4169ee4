"""From the name a user types to a `Prior`: embedded, on the Hub, a local folder or a checkpoint file."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dmgd.classes.imagenet import imagenet_classes
from dmgd.classes.info import ClassInfo
from dmgd.errors import ArtifactError, UsageError, listed, unknown_choice
from dmgd.files import sha256_bytes, sha256_file
from dmgd.priors.codec import AutoencoderCodec, Codec, NoCodec, PixelCodec
from dmgd.priors.defaults import PriorDefaults
from dmgd.priors.description import Description, description_path, local_path, read_description
from dmgd.priors.dit_prior import DiTPrior
from dmgd.priors.known import Published, check_classes, family_of, prior_names, published_prior
from dmgd.priors.pipeline_parts import PipelineParts, find_lora
from dmgd.priors.pipelines import PIPELINES, pipeline_class
from dmgd.priors.prior import Encoder, Prior, PriorIdentity
from dmgd.priors.prior_types import load_trained_network
from dmgd.priors.prompts import Prompts
from dmgd.priors.scheduler import read_process
from dmgd.priors.text_to_image import TextToImagePrior
from dmgd.priors.weights import fetch, weight_files, weights_digest
from dmgd.specs import NO_VAE, PriorSpec

PRECISIONS: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CHECKPOINT_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
_DIT_PIPELINES = ("DiTPipeline",)
ENCODERS = {"taesd": "madebyollin/taesd"}


def load_prior(
    prior: PriorSpec | Path | str,
    *,
    vae: str | None = None,
    encoder: str | None = None,
    precision: str | None = None,
    revision: str | None = None,
    prior_type: str | None = None,
    device: torch.device | str = "auto",
    **of_text: Any,
) -> Prior:
    """The prior of a spec or a name: `digits` (embedded), a published one such as `dit-xl-2-256` or `sd15`, a Hub id, a
    folder in diffusers' layout (of a DiT, its transformer's alone, or a text-to-image pipeline), or an original-format
    checkpoint file.

    `vae` (a folder or Hub id) replaces the prior's own codec; with "none" the prior samples latents, but neither
    encodes nor decodes images. `encoder` replaces the codec for encoding, see `with_encoder`. `precision` is that of
    the networks, see `settled_precision`; sampler and codec compute in float32. `revision` is a commit or branch on the
    Hub. `prior_type`: see `PriorSpec`. `device`: see `torch_device`. `of_text`: the fields of `PriorSpec` for
    text-to-image priors. Arguments override the spec.

    Raises UsageError for an unknown name, ArtifactError for weights that are damaged or cannot be downloaded.
    """
    options = {"vae": vae, "encoder": encoder, "precision": precision, "revision": revision, **of_text}
    options |= {"prior_type": prior_type}
    if unknown := sorted(set(of_text) - set(PriorSpec.of_text)):
        raise UsageError(f"load_prior has no option {listed(unknown)}")
    spec = PriorSpec.of(prior, **options).located()
    device = torch_device(device)
    spec = replace(spec, precision=settled_precision(spec.precision, device))
    if family := family_of(spec.name):
        loaded = family.load(spec, device)
    else:
        path, commit, known = _locate(spec)
        name = pipeline_class(path) if path.is_dir() else None
        if name not in (*PIPELINES, *_DIT_PIPELINES, None):
            raise ArtifactError(
                f"the prior {spec.name} is a {name}, which dmgd does not sample; it reads DiTs, {', '.join(PIPELINES)}"
            )
        load = _load_pipeline if name in PIPELINES else _load_dit
        loaded = load(replace(spec, revision=commit), path, known, device)
    return with_encoder(loaded, spec.encoder) if spec.encoder else loaded


def _load_dit(spec: PriorSpec, path: Path, known: Description, device: torch.device) -> Prior:
    if given := [f"--{name.replace('_', '-')}" for name in PriorSpec.of_text if getattr(spec, name) is not None]:
        raise UsageError(f"{listed(given)} has no effect: the prior {spec.name} is not told classes by prompts")
    described = read_description(path, known)
    trained = load_trained_network(path, spec, described)
    network, channels = trained.network, trained.network.config.in_channels
    if (described.guided_channels or 0) > channels:
        file = description_path(path)
        raise ArtifactError(f"{file}: guided_channels is {described.guided_channels}, its latents have {channels}")
    codec, codec_weights = _load_codec(path, spec.vae or described.vae, channels, device)
    return DiTPrior(
        spec=spec,
        identity=_identity(spec, described, trained.numerics, trained.weights, *codec_weights),
        classes=_classes(path, described, network.config.num_classes),
        defaults=_defaults(described, trained.defaults),
        codec=codec,
        device=device,
        network=network.to(device, PRECISIONS[spec.precision]).eval().requires_grad_(False),
        process=trained.process,
    )


def _load_pipeline(spec: PriorSpec, path: Path, known: Description, device: torch.device) -> Prior:
    if spec.prior_type:
        raise UsageError(f"--prior-type has no effect: the prior {spec.name} is told classes by prompts")
    prompts = Prompts.of(spec)
    lora = find_lora(spec.lora) if spec.lora else None
    described, name = read_description(path, known), pipeline_class(path) or ""
    parts = PipelineParts(path, name, PRECISIONS[spec.precision], lora.parent if lora else None)
    process, weights, network = read_process(path), parts.weights, parts.network(device)
    config: Any = network.config
    codec, codec_weights = _load_codec(path, spec.vae or described.vae, config.in_channels, device)
    multiple = codec.factor * getattr(config, "patch_size", 1)
    size = config.sample_size * codec.factor if spec.size is None else spec.size
    if size % multiple or size < multiple:
        raise UsageError(f"--size {size} is no multiple of {multiple}, as the sides of this prior's images must be")
    return TextToImagePrior(
        spec=spec,
        identity=_identity(spec, described, "diffusers", *weights, *codec_weights),
        classes=(),
        defaults=_defaults(described, parts.family.defaults),
        codec=codec,
        device=device,
        pipeline=parts,
        network=network,
        process=process,
        side=size // codec.factor,
        prompts=prompts,
        lora=sha256_file(lora) if lora else None,
    )


def _identity(spec: PriorSpec, described: Description, numerics: str, *weights: list[Path]) -> PriorIdentity:
    return PriorIdentity(
        id=described.id or (spec.name if spec.revision else Path(spec.name).name),
        revision=spec.revision,
        digest=sha256_bytes("".join(map(weights_digest, weights)).encode()),
        numerics=numerics,
    )


def _defaults(described: Description, own: PriorDefaults) -> PriorDefaults:
    """The description's, and those of its kind where it says nothing."""
    scale = own.guidance_scale if described.guidance_scale is None else described.guidance_scale
    return replace(own, guidance_scale=scale, guided_channels=described.guided_channels or own.guided_channels)


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
    """The local path of the weights (downloaded if needed), their commit on the Hub, and the built-in description."""
    name, suffix = spec.name, Path(spec.name).suffix
    if path := local_path(name):
        if path.is_file() and suffix not in CHECKPOINT_SUFFIXES:
            raise UsageError(f"the prior {name} is a file, but not a checkpoint ({', '.join(CHECKPOINT_SUFFIXES)})")
        if spec.revision:
            raise UsageError(
                f"the prior {name} is local and has no revision {spec.revision}; only priors on the Hub have one"
            )
        return path, None, Description()
    short, known = published_prior(name) or ("", Published(name, "", ""))
    hub_id, described = known.hub_id, replace(known.described, id=short or None)
    if hub_id.count("/") == 1 and not hub_id.startswith((".", "/", "~")) and not suffix:
        return *fetch(hub_id, revision=spec.revision, file=known.file), described
    if "/" in name or suffix in CHECKPOINT_SUFFIXES:
        raise UsageError(
            f"the prior {name} does not exist; give a folder, a checkpoint or one of {', '.join(prior_names())}"
        )
    raise unknown_choice("prior", name, (*prior_names(), "a folder", "a checkpoint", "a Hub id"))


def _load_codec(path: Path, vae: str | None, channels: int, device: torch.device) -> tuple[Codec, list[list[Path]]]:
    """The codec and the files of its weights, if it has any. `vae` is a folder or Hub id; None: the prior's own."""
    if vae == NO_VAE:
        return NoCodec(), []
    if vae is None and (path / "vae").is_dir():
        vae = str(path / "vae")
    if vae is not None:
        autoencoder, weights = _load_autoencoder(vae, "vae", device)
        if autoencoder.channels != channels:
            raise UsageError(
                f"the autoencoder {vae} gives latents of {autoencoder.channels} channels, but the prior {path} works "
                f"in {channels}; give --vae one that it was trained with"
            )
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
    table = described.classes
    if table is None:
        return imagenet_classes() if count == 1000 else tuple(ClassInfo(f"class {i}") for i in range(count))
    if len(table) != count:
        raise ArtifactError(
            f"the prior's description or id2label lists {len(table)} classes, its label table has {count}; list them "
            f"in {description_path(path)}"
        )
    return table


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
