"""The workflow `train-prior`: source images → pixels or latents → a small class-conditional DiT, a prior of its own."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dmgd.config import configured
from dmgd.distribution.engine import Engine, as_engine
from dmgd.errors import MismatchError, UsageError
from dmgd.evaluation.imageset import usual_shape
from dmgd.exporters.distilled import require_outside_sets
from dmgd.files import remove_temporaries, write_bytes, write_json
from dmgd.generation.samples import plain_samples
from dmgd.guard import guarded
from dmgd.images import encode
from dmgd.priors.latent_space import LatentSpace, is_folder, latent_space, open_codec, vae_label
from dmgd.priors.load import load_prior, torch_device
from dmgd.priors.prior import Prior
from dmgd.priors.recipe import LATENT_PIXELS, PIXELS, TrainingConfig, recipe_for, usable_size
from dmgd.priors.saving import copy_autoencoder, save_dit
from dmgd.priors.training import Examples, Training, new_network, train
from dmgd.priors.training_plan import TrainingPlan
from dmgd.progress import Progress, listener
from dmgd.runs.preview import contact_sheet
from dmgd.runs.prior_card import prior_card
from dmgd.runs.prior_folder import CARD, CHECKPOINT, SAMPLES, read_record, require_own, write_record
from dmgd.sources.mirror import TOLD, mirror_share
from dmgd.sources.open import as_source
from dmgd.sources.source import Source
from dmgd.specs import SourceSpec
from dmgd.statistics.encoding import encode_source
from dmgd.statistics.examples import training_examples

# Of guidance. In latents, as of DiT-XL/2: at 1.5 a prior that can draw objects draws smears of them. In pixels plain
# samples of the digits are worse at 4, and `dmgd` gains a point at most.
SCALE_OF_PIXELS, SCALE_OF_LATENTS = 1.5, 4.0
DEVIATION = (0.5, 2.0)  # of latents for which the noise schedule is right


def train_prior(
    source: Source | SourceSpec | str,
    config: TrainingConfig | None = None,
    *,
    out: Path | str,
    device: str | Engine = "auto",
    progress: Progress | bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Train a prior on the source's training split, by a configuration or its `settings`, such as minutes=5 or
    steps=1000, and write it to the folder `out`, which `load_prior` opens. Returns the record of the training: what was
    asked for, the plan, and the result with the number of steps and the losses.

    `device` may be a `RayEngine`, whose workers then encode the images; the network is trained in this process.

    Small images are learned as pixels, larger ones as the latents of the autoencoder `vae`. One of twenty images of
    every class is held out, to measure the loss; the test split is not read. A training that was interrupted is
    continued, and with `steps` ends with the weights that it would have had undisturbed; a finished one is left as it
    is.

    Raises UsageError if `out` holds something else or a size does not fit, MismatchError if it holds a training with
    other settings or the images have changed, DmgdError if the loss becomes NaN or infinite.
    """
    config, progress = configured(TrainingConfig, config, settings), listener(progress)
    engine = as_engine(device)
    out, on = Path(out), torch_device(engine.device)
    require_outside_sets(out)
    require_own(out)
    source = as_source(source, progress)
    with guarded(out):
        remove_temporaries(out)
        record = read_record(out, asked := _asked(source, config))
        if record and "result" in record:
            progress.note(f"{out} is finished, and left as it is")
            return record

        # The plan is made once, and kept while the training is interrupted; the images, as what the network learns.
        plan = TrainingPlan.from_json(record["plan"]) if record else None
        space, flip = _space(source, config, on, plan, progress)
        is_pixels = space.vae is None
        mirror = flip and not is_pixels  # mirrored latents are not the latents of mirror images
        latents = encode_source(source, space, mirror=mirror, max_bad=1.0, engine=engine, progress=progress)
        examples, held = training_examples(latents, space.latent_shape, is_pixels=is_pixels)
        if plan is None:
            held_out = len(held) // (2 if mirror else 1)
            images = latents.total - held_out
            recipe = recipe_for(space.latent_shape[1], images, config, on_gpu=on.type == "cuda")
            plan = TrainingPlan(
                content=latents.content,
                images=images,
                held_out=held_out,
                classes=len(source.classes),
                size=space.image_size,
                latent=space.latent_shape,
                vae=space.id if space.vae else None,
                flip=flip,
                recipe=recipe,
                device=on.type,
            )
            record = {"asked": asked, "plan": plan.to_json()}
            write_record(out, record)
        elif plan.content != latents.content:
            raise MismatchError(
                f"the images of {source.name} are not those that the training in {out} began with; choose another --out"
            )
        _warn_of_deviation(examples, plan, progress)

        network = new_network(plan.shape, config.seed).to(on)
        progress.note(plan.announced(config, sum(one.numel() for one in network.parameters())))
        training = Training(network, plan.recipe, examples, held, flip and is_pixels, config.seed)
        train(training, config, out / CHECKPOINT, progress)

        # The prior, loaded as a user loads it; its record is complete last.
        prior = _written(training, source, space, config, out)
        samples = plain_samples(prior, source.classes, config.seed, progress)
        write_bytes(out / SAMPLES, encode(contact_sheet(samples)))
        result: dict[str, Any] = {"steps": training.step, "seconds": round(training.seconds), "loss": training.loss}
        result |= {"held_out_loss": training.held_out_loss(), "digest": prior.identity.digest}
        write_bytes(out / CARD, prior_card(source, config, plan, result, prior.identity.id).encode())
        record = {**(record or {}), "result": result}
        write_record(out, record)
        (out / CHECKPOINT).unlink(missing_ok=True)
    return record


def _asked(source: Source, config: TrainingConfig) -> dict[str, Any]:
    """What an earlier training in the folder must have in common with this one; without local paths."""
    classes = [info.identity for info in source.classes]
    vae = vae_label(config.vae) if config.vae else None
    return {"source": source.name, "variant": source.variant, "classes": classes, **asdict(config), "vae": vae}


def _space(
    source: Source, config: TrainingConfig, device: torch.device, plan: TrainingPlan | None, progress: Progress
) -> tuple[LatentSpace, bool]:
    """The space to train in and whether with mirror images: by the plan, by the configuration, or else by the data."""
    if plan:
        codec, vae = open_codec(config.vae, plan.latent[0], device)
        return latent_space(codec, vae, config.vae, plan.size, device), plan.flip
    own, channels = usual_shape(source, "train")
    codec, vae = open_codec(config.vae, channels, device)
    wanted = config.size or min(own, LATENT_PIXELS if vae else PIXELS)
    size = usable_size(wanted, codec.factor)
    if size == 0 or config.size not in (None, size):
        larger = next(one for one in range(wanted, 2 * wanted + codec.factor) if usable_size(one, codec.factor) == one)
        raise UsageError(
            f"images of {wanted} pixels cannot be cut into patches here; take --size {f'{size} or ' if size else ''}"
            f"{larger}"
        )
    if own > size and not config.size:
        remedy = "; --vae takes an autoencoder for larger ones" if own > PIXELS and not vae else ""
        progress.note(f"the images are {own} pixels large, and learned at {size}{remedy}")
    if (flip := config.flip) is None:
        flip = (share := mirror_share(source)) < TOLD
        told = f"{share:.0%} of the images can be told from their mirror images, by chance it would be half"
        progress.note(f"{told}: {'mirror images are learned, too' if flip else 'mirror images are not learned'}")
    return latent_space(codec, vae, config.vae, size, device), flip


def _warn_of_deviation(examples: Examples, plan: TrainingPlan, progress: Progress) -> None:
    deviation = float(examples.values[:: max(1, len(examples) // 1000)].float().std()) if plan.vae else 1.0
    if not DEVIATION[0] < deviation < DEVIATION[1]:
        progress.warn(
            f"the latents have a deviation of {deviation:.2f} instead of about 1; in the config of {plan.vae}, "
            f"multiply scaling_factor by {1 / deviation:.3f}"
        )


def _written(training: Training, source: Source, space: LatentSpace, config: TrainingConfig, out: Path) -> Prior:
    """Write the averaged network with its description, and load it. A local autoencoder is copied, so that the folder
    can be moved; one on the Hub is named."""
    save_dit(training.average, out)
    described: dict[str, Any] = {"id": out.resolve().name, "prior_type": "dit", "numerics": "diffusers"}
    described["guidance_scale"] = SCALE_OF_LATENTS if space.vae else SCALE_OF_PIXELS
    described["classes"] = [{"name": one.name, "wnid": one.wnid} if one.wnid else one.name for one in source.classes]
    if space.vae and config.vae and is_folder(config.vae):
        copy_autoencoder(space.vae, out / "vae")
    elif config.vae:
        described["vae"] = config.vae
    write_json(out / "dmgd.json", described)
    return load_prior(out, device=space.device)
