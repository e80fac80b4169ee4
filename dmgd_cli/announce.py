"""What `dmgd distill` is about to do, said before anything is downloaded or computed."""

from pathlib import Path

from dmgd.generation.config import DistillConfig
from dmgd.matching.method import Method, Sampled
from dmgd.matching.methods import DEFAULT_METHOD
from dmgd.matching.selections import RDED
from dmgd.network import Arrival, require_arrivals
from dmgd.progress import Progress
from dmgd.sources.source import Source
from dmgd.specs import PriorSpec, SourceSpec, embedded_points


def opened_if_here(source: SourceSpec, prior: PriorSpec) -> Source | SourceSpec:
    """The source, opened unless it must be downloaded. Raises MismatchError for classes that the prior lacks, if they
    are known by then."""
    from dmgd.priors.known import check_classes
    from dmgd.sources.open import known_classes, open_source, source_arrival

    opened = source if source_arrival(source).urls else open_source(source)
    check_classes(prior, known_classes(opened) or (), source=source.name)
    return opened


def arrivals(source: SourceSpec, prior: PriorSpec) -> tuple[Arrival, Arrival]:
    """Where data and weights come from."""
    from dmgd.priors.known import prior_arrival
    from dmgd.sources.open import source_arrival

    return source_arrival(source), prior_arrival(prior)


def announce(
    source: Source | SourceSpec,
    prior: PriorSpec,
    config: DistillConfig,
    stats: Path | None,
    device: str,
    out: Path,
    progress: Progress,
) -> None:
    """Say what is used and made; `stats` are statistics that the user gives. Raises ArtifactError if data or weights
    are neither here nor can be downloaded."""
    from dmgd.priors.known import usual_defaults
    from dmgd.priors.load import settled_precision, torch_device
    from dmgd.sources.open import known_classes

    spec = source.spec if isinstance(source, Source) else source
    used = arrivals(spec, prior)
    points = 0 if stats else embedded_points(spec, prior)
    if config.can_use(points):
        used = (Arrival(spec.name, f"{points} support points per class, in the package"), used[1])
    elif points:
        most = max(ipc for ipc in range(1, points + 1) if DistillConfig(ipc).can_use(points))
        progress.note(
            f"this run needs the images of {spec.name}: the statistics in the package, {points} support points per "
            f"class, serve {DEFAULT_METHOD} up to --ipc {most}"
        )
    data, weights = (": ".join(filter(None, (one.what, one.origin))) for one in used)
    on, classes = torch_device(device), len(known_classes(source) or ())
    images, each = (classes * config.ipc, "") if classes else (config.ipc, " for every class")
    lines = {
        "source": data,
        "prior": weights,
        "images": f"{images:,}{each}" + (f" ({classes} classes × {config.ipc})" if classes else ""),
        "calls": _calls(config.method, usual_defaults(prior).steps, images, each),
        "device": f"{on}, {settled_precision(prior.precision, on)}",
        "run": f"{out}, by {config.method.name}",
    }
    for what, text in lines.items():
        progress.note(f"{what:6} {text}")
    require_arrivals(*used)


def _calls(method: Method, usual_steps: int, images: int, each: str) -> str:
    if isinstance(method, RDED):
        return f"none of the network: {method.teacher} judges up to {method.pool * method.crops:,} crops of each class"
    if not isinstance(method, Sampled):
        return "none of the network: real images are chosen"
    steps = method.steps or usual_steps
    return f"{images * steps:,} of the network{each}: {steps} steps for each image, each twice with guidance"
