"""The workflow `evaluate`: train on a set and on what it is compared with, test on the source's held-out images."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from dmgd.errors import UsageError
from dmgd.evaluation.baselines import NEED_PRIOR, Contender, fixed, make_baselines
from dmgd.evaluation.comparison import Evaluation, Score
from dmgd.evaluation.imageset import ImageSet, Shape, first_image, labelled_set, source_set
from dmgd.evaluation.inputs import Labelled
from dmgd.evaluation.measure import measure
from dmgd.evaluation.networks import parameter_count, smallest_size
from dmgd.evaluation.protocols import EvaluateConfig, Protocol, resolved
from dmgd.evaluation.teacher import TeacherModel, check_teacher, open_teacher
from dmgd.evaluation.train import seeded_network, train
from dmgd.images import channels_of
from dmgd.priors.prior import Prior
from dmgd.progress import SILENT, Progress
from dmgd.sources.source import Source


def evaluate(
    config: EvaluateConfig,
    found: Labelled,
    source: Source,
    *,
    others: Sequence[Labelled] = (),
    prior: Prior | None = None,
    teacher: str | None = None,
    metrics: bool = False,
    features: str | None = None,
    keep_real: bool = False,
    matching: str = "auto",
    device: str = "cpu",
    progress: Progress = SILENT,
    on_header: Callable[[dict[str, Any]], None] = lambda settings: None,
) -> Evaluation:
    """Train `config.repeats` networks on `found`, on each baseline and on `others`, and test them on the source's test
    split. Everything random follows from the seeds `config.seed`, `config.seed` + 1, …, one for each repeat.

    `keep_real` keeps the real training images, which a report needs. `on_header` is told every setting before the first
    training starts. Raises UsageError, ArtifactError or MismatchError for what cannot be evaluated, DmgdError if a loss
    is no longer finite or the teacher knows nothing.
    """
    started = time.perf_counter()
    # The images, brought to one shape, their labels in the test source's order.
    sample = first_image(source, "test")
    sizes = {"source_size": min(sample.size), "num_classes": len(source.classes)}
    protocol = resolved(config.chosen(), num_images=len(found.images), **sizes)
    shape = Shape(protocol.resize or 0, protocol.size or 0, channels_of(sample))
    training_shape = Shape(shape.size, shape.size, shape.channels)
    own = labelled_set(found, source.classes, training_shape, matching)
    compared = [labelled_set(other, source.classes, training_shape, matching) for other in others]
    test = source_set(source, "test", "test", shape, progress=progress)
    require_network_fits(protocol, own)

    # What is trained, and by which settings.
    settings = header(config, protocol, own, test, source, device)
    loaded = open_teacher(teacher, protocol, own) if protocol.loss == "soft" else None
    if loaded:
        settings["teacher"] = check_teacher(loaded, protocol, test, device)
    on_header(settings)
    seeds = range(config.seed, config.seed + config.repeats)
    contenders = [fixed(own, "set"), *(fixed(other, "other") for other in compared)]
    contenders += make_baselines(config.against, source, training_shape, own.counts, seeds, prior, progress=progress)
    scores = []
    for contender in contenders:
        fitted = resolved(config.chosen(), num_images=len(contender.of_seed(config.seed)), **sizes)
        scores.append(score(contender, test, fitted, seeds, loaded, device, progress))
    # How the sets lie among the real images.
    sets, measured = tuple(contender.of_seed(config.seed) for contender in contenders), {}
    real = None
    if keep_real or metrics:
        real = source_set(source, "train", "real", training_shape, progress=progress)
    if metrics and real:
        settings["features"] = features or f"latents of {prior.identity.id}" if prior else features
        measured = measure(sets, real, prior, features, device, progress=progress)
    return Evaluation(settings, tuple(scores), measured, sets, real, time.perf_counter() - started)


def score(
    contender: Contender,
    test: ImageSet,
    protocol: Protocol,
    seeds: range,
    teacher: TeacherModel | None,
    device: str,
    progress: Progress,
) -> Score:
    """Train and test once for each seed."""
    trainings, labels = [], teacher.on(device) if teacher and protocol.loss == "soft" else None
    with progress.task(f"train {contender.name}", len(seeds) * (protocol.epochs or 1), "epochs") as task:
        for repeat, seed in enumerate(seeds):
            task.describe(f"repeat {repeat + 1} of {len(seeds)}")
            data = contender.of_seed(seed)
            trainings.append(train(data, test, protocol, seed, teacher=labels, device=device, on_epoch=task.advance))
    return Score(contender.name, contender.kind, len(data), tuple(trainings))


def header(
    config: EvaluateConfig, protocol: Protocol, own: ImageSet, test: ImageSet, source: Source, device: str
) -> dict[str, Any]:
    """Every setting of the evaluation, as it is printed first and kept in the report."""
    return {
        "protocol": protocol.to_json(),
        "parameters": parameter_count(seeded_network(protocol, own, config.seed)),
        "set": {"name": own.name, "images": len(own), "images_per_class": own.counts},
        "source": {"name": source.name, "variant": source.variant, "test_images": len(test)},
        "classes": [info.to_json() for info in source.classes],
        "seeds": list(range(config.seed, config.seed + config.repeats)),
        "against": list(config.against),
        "device": device,
        "torch": torch.__version__,
    }


def require_network_fits(protocol: Protocol, data: ImageSet) -> None:
    """Raise UsageError if the images are too small for the network: its last maps would be single pixels, which
    instance norm sets to zero."""
    least = smallest_size(protocol.network)
    if protocol.norm == "instance" and (protocol.size or 0) < least:
        raise UsageError(
            f"{protocol.network} needs images of at least {least} pixels, not {protocol.size}; give --size {least} or "
            "a smaller --network"
        )


def needs_prior(config: EvaluateConfig, *, metrics: bool, features: str | None, report: Path | None) -> bool:
    """Whether an evaluation uses a prior: for baselines in its latent space, metrics, or the report's map."""
    return bool(set(config.against) & set(NEED_PRIOR)) or (metrics and not features) or report is not None
