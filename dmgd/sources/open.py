"""From the name a user types to a source."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from dmgd.classes.cifar import cifar10_classes
from dmgd.classes.imagenet import imagenet_classes, imagenet_subset, imagenet_subsets
from dmgd.classes.info import ClassInfo
from dmgd.classes.matching import match_table
from dmgd.errors import UsageError, unknown_choice
from dmgd.network import Arrival
from dmgd.progress import Progress, listener
from dmgd.sources.hf_opening import datasets_cache, is_hub_id
from dmgd.sources.labelled import LabelledSource, classes_from_labels, translate
from dmgd.sources.layouts import KINDS, layout_of, open_layout, prefixes
from dmgd.sources.lazy import LazySource
from dmgd.sources.named import arrival_of, hub_variant, open_named
from dmgd.sources.source import Layout, Source
from dmgd.specs import CIFAR10, DIGITS, SourceSpec, is_url, shown_url

NAMED = (DIGITS, CIFAR10, *imagenet_subsets(), "imagenet-1k")
CIFAR_LICENCE = "none stated by CIFAR-10's authors; used for research"
IMAGENET_LICENCE = "ImageNet terms of access: non-commercial research and education"
REMOTE = "read from its URL"
UNKNOWN_LICENCE = "unknown; see the data's own terms"


def open_source(
    source: SourceSpec | str,
    *,
    data: str | None = None,
    test_data: str | None = None,
    variant: str | None = None,
    columns: str | None = None,
    class_map: Path | str | None = None,
    labels: Sequence[str] | None = None,
    progress: Progress | bool = False,
) -> Source:
    """The source of a spec or a name: `digits`, `cifar10`, one of ImageNet's family, `folder:PATH`, `hf:ID_OR_PATH`,
    `wds:PATTERN` or another kind that is registered in `dmgd.sources.layouts`.

    `data` is a local copy of a named source: a folder, parquet or WebDataset shards (prefix it as above if ambiguous).
    `test_data` is the test split where the data has none. `variant` is the dataset's configuration on the Hub,
    `columns` "IMAGE,LABEL" of a Hugging Face dataset. `class_map` is a JSON or CSV file that maps the data's labels to
    WordNet ids or class names. `labels` are those of its training images, if another process has read them: to know
    them, shards are read whole. Arguments override the spec. A named source without a local copy is downloaded;
    `progress` True shows it on stderr.

    Raises UsageError for missing data and conflicting options, MismatchError for classes that do not match.
    """
    options = {"data": data, "test_data": test_data, "variant": variant, "columns": columns}
    spec = SourceSpec.of(source, **options, class_map=str(class_map) if class_map else None).located()
    kind, _, location = spec.name.partition(":")
    if spec.name == DIGITS:
        from dmgd.sources.digits import DigitsSource

        if given := [option for option, value in asdict(spec).items() if option != "name" and value is not None]:
            options_given = ", ".join(f"--{option.replace('_', '-')}" for option in given)
            raise UsageError(f"the source digits is embedded and takes no {options_given}")
        return DigitsSource()
    if spec.name == CIFAR10 and spec == SourceSpec(CIFAR10):  # its prior knows enough to be used without the data
        return LazySource(
            spec, CIFAR_LICENCE, cifar10_classes(), lambda: _named_source(spec, labels, listener(progress))
        )
    if spec.name in NAMED:
        return _named_source(spec, labels, listener(progress))
    if kind in KINDS and location:
        if spec.data is not None:
            raise UsageError(f"--data goes with a named source; {spec.name} already says where the data is")
        return _any_source(spec, labels, kind, location)
    if Path(spec.name).expanduser().exists():
        raise UsageError(f"the source {spec.name} is a path; did you mean {layout_of(spec.name)}:{spec.name}?")
    raise unknown_choice("source", spec.name, (*NAMED, *prefixes()))


def as_source(source: Source | SourceSpec | str, progress: Progress | bool = False) -> Source:
    """`source` itself, opened first if it is a spec or a name."""
    return source if isinstance(source, Source) else open_source(source, progress=progress)


def source_arrival(spec: SourceSpec) -> Arrival:
    """Where a source's data comes from, known without opening it. Raises UsageError for a variant that it lacks."""
    if spec.name in NAMED and spec.name != DIGITS and spec.data is None:
        return arrival_of(spec.name, spec.variant)
    kind, _, location = spec.name.partition(":")
    if kind == "hf" and is_hub_id(location):
        if (datasets_cache() / location.replace("/", "___")).is_dir():
            return Arrival(spec.name, "in the cache")
        from huggingface_hub import constants

        return Arrival(spec.name, "from the Hub", (constants.ENDPOINT,), "give another --source")
    if is_url(location) or is_url(spec.data or ""):
        return Arrival(spec.published().name, REMOTE)
    return Arrival(spec.name, "embedded" if spec.name == DIGITS else "local")


def known_classes(source: Source | SourceSpec) -> Sequence[ClassInfo] | None:
    """The classes of a source that is open, or whose name says them; None for others."""
    if isinstance(source, Source):
        return source.classes
    return _table(source.name) if source.name in NAMED and source.name != DIGITS else None


def _table(name: str) -> Sequence[ClassInfo]:
    if name == CIFAR10:
        return cifar10_classes()
    return imagenet_classes() if name == "imagenet-1k" else imagenet_subset(name)


def _any_source(spec: SourceSpec, labels: Sequence[str] | None, kind: str, location: str) -> LabelledSource:
    """The source `kind:location`, whose classes are the data's own labels."""
    layout = open_layout(spec.name, spec.variant, spec.columns)
    test = open_layout(spec.test_data, None, spec.columns if kind == "hf" else None) if spec.test_data else None
    classes, rows = classes_from_labels(translate(labels or layout.labels(), spec.class_map, location), location)
    is_local = kind != "hf" or Path(location).exists()
    if is_url(location):
        name, variant = f"{kind}:{shown_url(location)}", REMOTE
    else:
        name = f"{kind}:{Path(location).name if is_local else location}"  # local paths are private
        variant = "local copy" if is_local else hub_variant(layout, spec.variant)
    return LabelledSource(spec, name, variant, UNKNOWN_LICENCE, classes, rows, layout, test)


def _named_source(spec: SourceSpec, labels: Sequence[str] | None, progress: Progress) -> LabelledSource:
    """CIFAR-10, or a source of ImageNet's family, from the local copy `data` or from the Hub."""
    name = spec.name
    layout: Layout
    table = _table(name)
    if spec.data is not None:
        layout = open_layout(spec.data, spec.variant, spec.columns)
        described = REMOTE if is_url(layout.location) else "local copy"
    else:
        layout, described = open_named(name, spec.variant, spec.columns, progress)
    test = open_layout(spec.test_data) if spec.test_data else None
    rows = match_table(
        name, table, translate(labels or layout.labels(), spec.class_map, layout.location), layout.location
    )
    licence = CIFAR_LICENCE if name == CIFAR10 else IMAGENET_LICENCE
    return LabelledSource(spec, name, described, licence, tuple(table), rows, layout, test)
