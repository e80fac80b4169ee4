"""The workflow `evaluate`: train on a set and on the baselines, test on the source's test images."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dmgd.config import configured
from dmgd.distribution.engine import Engine, as_engine
from dmgd.errors import UsageError
from dmgd.evaluation.baselines import Contender, choose_baselines, in_turn
from dmgd.evaluation.comparison import Evaluation, Score, details
from dmgd.evaluation.examples import evaluation_examples, shown_classes, with_map
from dmgd.evaluation.features import latents_of, open_features
from dmgd.evaluation.imageset import (
    ImageSet,
    Shape,
    by_recipe,
    prepared_set,
    prior_of,
    read_sets,
    source_of,
    source_set,
    usual_shape,
)
from dmgd.evaluation.inputs import RawSet
from dmgd.evaluation.measure import Reference, described_probe, measure, open_reference, train_probe
from dmgd.evaluation.overlap import refuse_test_images
from dmgd.evaluation.protocols import EvaluateConfig, Protocol, resolved
from dmgd.evaluation.scores import Scores, Wanted, all_trainings
from dmgd.evaluation.stored_labels import described_labels, views_size, with_labels
from dmgd.evaluation.teacher import TeacherModel, check_teacher, open_teacher
from dmgd.evaluation.train import Training, described
from dmgd.evaluation.training_work import TrainingWork
from dmgd.priors.load import as_prior, torch_device
from dmgd.priors.prior import Prior
from dmgd.progress import Progress, listener
from dmgd.runs.directory import RunDirectory
from dmgd.sources.open import as_source
from dmgd.sources.source import Source
from dmgd.specs import PriorSpec, SourceSpec

SetLike = RawSet | RunDirectory | Path | str


def evaluate(
    sets: SetLike | Sequence[SetLike],
    source: Source | SourceSpec | str | None = None,
    prior: Prior | PriorSpec | str | None = None,
    config: EvaluateConfig | None = None,
    *,
    device: str | Engine = "auto",
    progress: Progress | bool = False,
    on_header: Callable[[dict[str, Any]], None] = lambda settings: None,
    **settings: Any,
) -> Evaluation:
    """Train networks on the first of `sets` (or the only one), on each baseline and on the other sets, and test them on
    the source's test split, by a configuration or its `settings`, such as repeats=3, against=("random", "dit").
    All randomness derives from the seeds `seed`, `seed` + 1, …, one per repeat.

    Sets are runs or paths of anything that `dmgd evaluate` reads. Source and prior default to those that the sets were
    made with. A prior is only used if `EvaluateConfig.needs_prior`.

    The network "probe" and the metrics use images at the set's own size (at most the source's), and the features of the
    network `features` or else the prior's latents.

    `device` may be a `RayEngine`, whose workers then train, one network at a time each.

    `on_header` is called with all settings before training starts. Raises UsageError, ArtifactError or MismatchError
    for what cannot be evaluated, DmgdError if a loss becomes NaN or infinite, or the teacher is hardly above chance.
    """
    started = time.perf_counter()
    config, progress = configured(EvaluateConfig, config, settings), listener(progress)
    engine = as_engine(device)
    device = str(torch_device(engine.device))
    sets = with_labels(_read(sets, config.tiles), config.labels)
    sets = [one.by_weight() for one in sets] if config.weighted else sets
    config = replace(config, size=views_size(sets, config.size))
    source = as_source(source or source_of(sets), progress)
    prior = as_prior(prior or prior_of(sets, source.name), device) if config.needs_prior else None
    features = open_features(config.features, prior, device) if config.probes or config.metrics else None

    for remark in (*source.remarks("test"), *(remark for one in sets for remark in one.remarks)):
        progress.warn(remark)

    # The images in one shape, with labels in the test source's order; runs that differ in their seeds together.
    groups = by_recipe(sets)
    source_size, channels = usual_shape(source, "test")
    own_size = min(source_size, sets[0].check().side)
    chosen = config.chosen()
    if config.probes and not config.size:
        chosen = replace(chosen, size=own_size, resize=own_size)
    sizes = {"source_size": source_size, "num_classes": len(source.classes)}
    protocol = resolved(chosen, num_images=len(sets[0].images), **sizes)
    shape = Shape(protocol.resize or 0, protocol.size or 0, channels)
    training_shape = Shape(shape.size, shape.size, shape.channels)
    measuring_shape = training_shape if config.probes else Shape(own_size, own_size, shape.channels)
    prepared = [[prepared_set(one, source.classes, training_shape, config.matching) for one in own] for own in groups]
    own = prepared[0][0]
    protocol = own.soft.protocol(protocol) if own.soft else protocol
    test = source_set(source, "test", "test", shape, progress=progress)
    for one in sets:
        stored_shape = shape.in_mosaics(one.side, one.tiles)
        alike = test if one.tiles == 1 else source_set(source, "test", "test", stored_shape, progress=progress)
        refuse_test_images([prepared_set(one, source.classes, shape, config.matching)], alike, progress)

    # The settings of the training.
    seeds = range(config.seed, config.seed + config.repeats)
    header = {
        **(described_probe(features, own) if features and config.probes else described(protocol, own, config.seed)),
        "set": {
            **{"name": own.name, "images": len(own), "images_per_class": own.counts},
            **own.stored_as,
            **sets[0].made_by,
        },
        "source": {"name": source.name, "variant": source.variant, "test_images": len(test)},
        "classes": [info.to_json() for info in source.classes],
        "seeds": list(seeds),
        "against": list(config.against),
        "device": device,
        "torch": torch.__version__,
        "dmgd": version("dmgd"),
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
    }
    if config.weighted:
        header["weights"] = [[one.name, min(one.weights or ()), max(one.weights or ())] for one in sets]
    if config.labels:
        header["labels"] = described_labels(sets)
    teacher = _teacher(config, chosen, protocol, sets, own)
    if teacher:
        header["teacher"] = check_teacher(teacher, test, device)
    on_header(header)

    # The training.
    baselines = choose_baselines(config.against, source, own.counts, seeds, prior, engine=engine, progress=progress)
    contenders = [in_turn(own, "other" if number else "set", seeds) for number, own in enumerate(prepared)]
    contenders += baselines.at(training_shape.in_mosaics(sets[0].side, own.tiles), seeds, progress=progress)
    reference = None
    if features and config.probes:
        reference = open_reference(features, source, measuring_shape, progress=progress)
    trained_on = tuple(contender.of_seed(config.seed) for contender in contenders)
    if reference:
        trainings = [_fit_probes(contender, reference, seeds, progress) for contender in contenders]
    else:
        protocols = [resolved(chosen, num_images=len(data), **sizes) for data in trained_on]
        protocols = [
            data.soft.protocol(one) if data.soft else one for data, one in zip(trained_on, protocols, strict=True)
        ]
        work = TrainingWork(test, teacher.network if teacher else None, device)
        kept = Scores(test.digest, torch.device(device).type, teacher.sha256 if teacher else None)
        wanted = [
            Wanted(number, contender.of_seed(own[0]), protocol, own)
            for number, (contender, protocol) in enumerate(zip(contenders, protocols, strict=True))
            for own in (((seed,) for seed in seeds) if contender.varies else [tuple(seeds)])
        ]
        done = all_trainings(wanted, work, kept, engine, progress)
        trainings = [[done[number, seed] for seed in seeds] for number in range(len(contenders))]
    scores = tuple(
        Score(data.name, contender.kind, len(data), tuple(own), data.stored_as)
        for contender, data, own in zip(contenders, trained_on, trainings, strict=True)
    )

    # The set metrics, and the images for the report.
    measured: dict[str, dict[str, float]] = {}
    examples = None
    if config.metrics and features:
        reference = reference or open_reference(features, source, measuring_shape, progress=progress)
        header |= {"features": features.name, "measured_size": measuring_shape.size}
        seen: Sequence[ImageSet] = trained_on
        if measuring_shape != training_shape:
            first = [group[0] for group in groups]
            seen = [prepared_set(one, source.classes, measuring_shape, config.matching) for one in first]
            stored_shape = measuring_shape.in_mosaics(sets[0].side, own.tiles)
            seen += [one.of_seed(config.seed) for one in baselines.at(stored_shape, seeds[:1], progress=progress)]
        measured = measure(seen, reference, progress=progress)
    if config.report:
        own_shape = Shape(own_size, own_size, shape.channels)
        classes = shown_classes(details(scores[0].trainings)["per_class"])
        first = [group[0] for group in groups]
        examples = evaluation_examples(trained_on, first, baselines, classes, own_shape, config.seed, progress)
        if space := features or (latents_of(prior) if prior else None):
            examples = with_map(examples, space, progress)
    return Evaluation(header, scores, measured, trained_on, examples, time.perf_counter() - started)


def _read(sets: SetLike | Sequence[SetLike], tiles: int | None) -> Sequence[RawSet]:
    """The sets, read from disk where needed, in mosaics of these tiles; sets that were read already come first."""
    several = [sets] if isinstance(sets, SetLike) else sets
    if not several:
        raise UsageError("there is no set to evaluate; give at least one")
    read = [one for one in several if isinstance(one, RawSet)]
    paths = [one.path if isinstance(one, RunDirectory) else Path(one) for one in several if not isinstance(one, RawSet)]
    return [one.in_mosaics(tiles) for one in (*read, *(read_sets(paths) if paths else []))]


def _teacher(
    config: EvaluateConfig, chosen: Protocol, resolved: Protocol, sets: Sequence[RawSet], own: ImageSet
) -> TeacherModel | None:
    """The teacher of the sets and baselines that have no stored labels, where the protocol has soft labels."""
    bare = [one.name for one in sets if not one.soft] + list(config.against)
    if chosen.loss == "hard" or not (bare or config.teacher):
        return None
    if config.labels and not config.teacher:
        raise UsageError(
            f"{bare[0]} has no stored labels, and {chosen.name} needs some: give --teacher, or leave it out"
        )
    return open_teacher(config.teacher, resolved, own)


def _fit_probes(contender: Contender, reference: Reference, seeds: range, progress: Progress) -> list[Training]:
    """Fit and test a probe per seed; the same images give the same probe."""
    trainings: list[Training] = []
    with progress.task(f"probe {contender.name}", len(seeds), "repeats") as task:
        for seed in seeds:
            if trainings and not contender.varies:
                trainings.append(replace(trainings[0], seed=seed, seconds=0.0))
            else:
                trainings.append(train_probe(contender.of_seed(seed), reference, seed))
            task.advance()
    return trainings
