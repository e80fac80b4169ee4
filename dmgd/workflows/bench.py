"""The workflow `bench`: make the sets of all methods, train on them under the same terms, compare."""

import time
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from dmgd.config import StatisticsConfig, configured
from dmgd.distribution.engine import Engine, as_engine
from dmgd.evaluation.bench_config import BenchConfig, bench_command
from dmgd.evaluation.bench_files import write_comparison
from dmgd.evaluation.bench_labels import BenchLabels
from dmgd.evaluation.bench_sets import BenchSets, Made, require_own_folder
from dmgd.evaluation.bench_terms import Terms, open_terms
from dmgd.evaluation.comparison_table import Comparison
from dmgd.evaluation.cores import fitting_threads
from dmgd.evaluation.estimate import Estimate, estimated
from dmgd.evaluation.examples import Examples, comparison_examples, with_map
from dmgd.evaluation.features import latents_of
from dmgd.evaluation.planned_set import PlannedSet
from dmgd.evaluation.results import Result
from dmgd.evaluation.scores import all_trainings
from dmgd.exporters.distilled import require_outside_sets
from dmgd.guard import guarded
from dmgd.mosaics import require_mosaics
from dmgd.priors.load import as_prior, torch_device
from dmgd.priors.prior import Prior
from dmgd.progress import PartOf, Progress, listener
from dmgd.sources.open import as_source
from dmgd.sources.source import Source
from dmgd.specs import PriorSpec, SourceSpec, default_prior
from dmgd.workflows.distill import distill
from dmgd.workflows.fit_stats import fit_statistics


def bench(
    source: Source | SourceSpec | str,
    prior: Prior | PriorSpec | str | None = None,
    config: BenchConfig | None = None,
    *,
    out: Path | str,
    device: str | Engine = "auto",
    progress: Progress | bool = False,
    on_estimate: Callable[[Estimate], None] = lambda estimate: None,
    **settings: Any,
) -> Comparison:
    """Compare methods under the same terms, by a configuration or its `settings`, see `BenchConfig`: methods=("dmgd",
    "random"), ipc=(1, 10), seeds=3. Every set is distilled or chosen, and labelled if that is asked for; networks are
    trained on each, and tested on the source's test images.

    The folder `out` gets the runs and labels, and the tables and the report of what is compared. Those that are there,
    and trainings that are in the cache, are used: a bench that was interrupted goes on, and another bench in the same
    folder adds to it. `on_estimate` is called with what is missing and how long it will take.

    Source and prior (None: the source's own) may be opened ones, specs, names or paths. `device` may be a `RayEngine`,
    whose workers then sample and train. Raises UsageError if `out` holds something else or a setting is wrong,
    MismatchError if a run there has other settings, or if sets contain test images, and what `evaluate` raises.
    """
    config, progress, out = configured(BenchConfig, config, settings), listener(progress), Path(out)
    require_outside_sets(out / "bench.json")
    require_own_folder(out)
    engine = as_engine(device)
    source = as_source(source, progress)
    on = str(torch_device(engine.device))
    with engine, guarded(out):
        # The terms: each protocol with each network, and the test images in its size.
        terms = open_terms(config, source, on, progress)
        loaded = as_prior(prior or default_prior(source.name), on, source.classes) if config.needs_prior else None
        size, channels = terms[0].source_size, terms[0].test_shape.channels
        sets, planned = BenchSets(out, source, loaded, size, channels, engine, progress), config.sets()
        labels, images = BenchLabels(sets, progress), list(dict.fromkeys(one.images for one in planned))
        for tiles in config.tiles:
            require_mosaics("bench", {}, (sets.side, sets.side), tiles)

        # What is missing, and how long that takes.
        on_estimate(estimated(planned, config, terms, sets, labels))

        # The sets: real images first, among which test images would be found.
        test, shape = terms[0].test, terms[0].test_shape
        real, distilled = ([one for one in images if bool(one.distillation) == wanted] for wanted in (False, True))
        made = {one: sets.made(one) or sets.select(one) for one in real}
        sets.refuse_test_images(real, test, shape)
        made |= _distilled(distilled, sets, engine, progress)
        sets.refuse_test_images(distilled, test, shape)
        labels.make((one, term.labelling(one)) for term in terms for one in planned)

        # The trainings.
        results: list[Result] = []
        for term in terms:
            wanted = term.wanted(planned, config, labels)
            trained = all_trainings(wanted, term.work, term.scores, engine, progress)
            for training in wanted:
                one = planned[training.number]
                facts, teacher = made[one.images].facts, term.teaches
                if labelling := term.labelling(one):
                    facts, teacher = labels.facts(one, facts, labelling), labels.teacher(one, labelling)
                results += [
                    Result(facts, training.protocol, repeat, trained[training.number, seed], teacher)
                    for repeat, seed in enumerate(training.seeds)
                ]

        # The tables and the report.
        comparison = Comparison(tuple(results), source.classes, _described(config, sets, terms))
        shown = partial(_examples, comparison, images, sets, terms, progress)
        return write_comparison(comparison, out, shown)


def _distilled(
    planned: Sequence[PlannedSet], sets: BenchSets, engine: Engine, progress: Progress
) -> dict[PlannedSet, Made]:
    """The runs, each made, continued or checked by `distill`; their statistics are fitted first. A run may be that of
    several sets: as it is, and in mosaics."""
    sharing: dict[Path, list[PlannedSet]] = {}
    for one in planned:
        sharing.setdefault(sets.run_path(one), []).append(one)
    configs = {own[0]: own[0].distillation for own in sharing.values() if own[0].distillation}
    if not configs or not (prior := sets.prior):
        return {}
    seconds: dict[int, float | None] = {}
    for k in sorted({config.k for config in configs.values()}):
        wanted = StatisticsConfig(k)
        fit = partial(fit_statistics, sets.source, prior, wanted, device=engine, progress=progress)
        seconds[k] = sets.statistics_seconds(wanted, fit)
    found: dict[PlannedSet, Made] = {}
    total = sum(map(sets.images_of, configs))
    with progress.task("distil", total, "images") as bar, fitting_threads(prior.image_size, prior.device):
        for one, config in configs.items():
            bar.describe(str(one))
            count, before, started = sets.images_of(one), sets.images_done(one), time.perf_counter()
            own = PartOf(progress, bar, str(one), "distil", count)
            run = distill(sets.source, prior, config, out=sets.run_path(one), device=engine, progress=own)
            taken = {"statistics": seconds[config.k] if config.method.uses_points else None}
            if before < count:  # what an earlier attempt has made is added at the same rate
                taken["sampling"] = (time.perf_counter() - started) * count / (count - before)
            known = {name: round(s, 3) for name, s in taken.items() if s is not None}
            found |= {same: sets.keep_run(same, run, known) for same in sharing[sets.run_path(one)]}
    return found


def _examples(
    comparison: Comparison, planned: Sequence[PlannedSet], sets: BenchSets, terms: Sequence[Terms], progress: Progress
) -> Examples | None:
    """What the report shows: images, or parts of mosaics, of the sets of the largest IPC and the first seed; None if
    all have all images."""
    largest = max((one.ipc for one in planned if one.ipc), default=None)
    shape = max((term.shape for term in terms), key=lambda shape: shape.size)
    own = {one.row: sets.at(one, shape) for one in planned if one.ipc and (one.ipc, one.seed) == (largest, 0)}
    if not own:
        return None
    examples = comparison_examples(comparison.to_json(), largest, own, sets.source, progress)
    return with_map(examples, latents_of(sets.prior), progress) if sets.prior else examples


def _described(config: BenchConfig, sets: BenchSets, terms: Sequence[Terms]) -> dict[str, Any]:
    """The settings of the comparison, as they are recorded."""
    source, prior, first = sets.source, sets.prior, terms[0]
    return {
        **config.to_json(),
        "source": {"name": source.name, "variant": source.variant, "test_images": len(first.test)},
        "prior": prior.identity.to_json() if prior else None,
        "networks": list(dict.fromkeys(term.for_images(1).network for term in terms)),
        "device": first.device,
        "torch": torch.__version__,
        "dmgd": version("dmgd"),
        "command": bench_command(config, source.spec, prior.spec if prior else None),
        "date": date.today().isoformat(),
    }
