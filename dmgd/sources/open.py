"""From the name a user types to a source."""

from dataclasses import asdict
from pathlib import Path

from dmgd.classes.imagenet import imagenet_classes, imagenet_subset, imagenet_subsets
from dmgd.classes.matching import match_table
from dmgd.errors import UsageError, unknown_choice
from dmgd.sources.huggingface import HubUnreachable, open_hugging_face
from dmgd.sources.labelled import LabelledSource, classes_from_labels, translate
from dmgd.sources.layouts import KINDS, open_layout, prefixes
from dmgd.sources.source import Layout, Source
from dmgd.specs import EMBEDDED, SourceSpec

NAMED = (EMBEDDED, *imagenet_subsets(), "imagenet-1k")
IMAGENET_LICENCE = "ImageNet terms of access: non-commercial research and education"
UNKNOWN_LICENCE = "unknown; see the data's own terms"

# The Hub ids of named sources and their configurations, the default first.
_FASTAI = ("full_size", "320px", "160px")
HUB_COPIES = {"imagenette": ("frgfm/imagenette", _FASTAI), "imagewoof": ("frgfm/imagewoof", _FASTAI)}
IMAGENET_1K = ("ILSVRC/imagenet-1k", ())  # also the source of subsets without a dataset of their own


def open_source(
    source: SourceSpec | str,
    *,
    data: str | None = None,
    test_data: str | None = None,
    variant: str | None = None,
    columns: str | None = None,
    class_map: Path | str | None = None,
) -> Source:
    """The source of a spec or a name: `digits`, one of ImageNet's family, `folder:PATH`, `hf:ID_OR_PATH`, `wds:PATTERN`
    or another kind that is registered in `dmgd.sources.layouts`.

    `data` is a local copy of a named source: a folder, parquet or WebDataset shards (prefix it as above if ambiguous).
    `test_data` is the test split where the data has none. `variant` is the dataset's configuration on the Hub,
    `columns` "IMAGE,LABEL" of a Hugging Face dataset. `class_map` is a JSON or CSV file that maps the data's labels to
    WordNet ids or class names. Arguments override the spec.

    Raises UsageError for missing data and conflicting options, MismatchError for classes that do not match.
    """
    options = {"data": data, "test_data": test_data, "variant": variant, "columns": columns}
    spec = SourceSpec.of(source, **options, class_map=str(class_map) if class_map else None).located()
    kind, _, location = spec.name.partition(":")
    if spec.name == EMBEDDED:
        from dmgd.sources.digits import DigitsSource

        if given := [option for option, value in asdict(spec).items() if option != "name" and value is not None]:
            options_given = ", ".join(f"--{option.replace('_', '-')}" for option in given)
            raise UsageError(f"the source digits is embedded and takes no {options_given}")
        return DigitsSource()
    if spec.name in NAMED:
        return _named_source(spec)
    if kind in KINDS and location:
        if spec.data is not None:
            raise UsageError(f"--data goes with a named source; {spec.name} already says where the data is")
        return _any_source(spec, kind, location)
    raise unknown_choice("source", spec.name, (*NAMED, *prefixes()))


def as_source(source: Source | SourceSpec | str) -> Source:
    """`source` itself, opened first if it is a spec or a name."""
    return source if isinstance(source, Source) else open_source(source)


def _any_source(spec: SourceSpec, kind: str, location: str) -> LabelledSource:
    """The source `kind:location`, whose classes are the data's own labels."""
    layout = open_layout(spec.name, spec.variant, spec.columns)
    test = open_layout(spec.test_data, None, spec.columns if kind == "hf" else None) if spec.test_data else None
    classes, rows = classes_from_labels(translate(layout.labels(), spec.class_map, location), location)
    is_local = kind != "hf" or Path(location).exists()
    name = f"{kind}:{Path(location).name if is_local else location}"  # local paths are private
    variant = "local copy" if is_local else _hub_variant(layout, spec.variant)
    return LabelledSource(spec, name, variant, UNKNOWN_LICENCE, classes, rows, layout, test)


def _named_source(spec: SourceSpec) -> LabelledSource:
    """A source of ImageNet's family, from the local copy `data` or from the Hub."""
    name = spec.name
    table = imagenet_classes() if name == "imagenet-1k" else imagenet_subset(name)
    if spec.data is None:
        layout, described = _on_the_hub(name, spec.variant, spec.columns)
    else:
        layout, described = open_layout(spec.data, spec.variant, spec.columns), "local copy"
    test = open_layout(spec.test_data) if spec.test_data else None
    rows = match_table(name, table, translate(layout.labels(), spec.class_map, layout.location), layout.location)
    return LabelledSource(spec, name, described, IMAGENET_LICENCE, tuple(table), rows, layout, test)


def _on_the_hub(name: str, variant: str | None, columns: str | None) -> tuple[Layout, str]:
    hub_id, variants = HUB_COPIES.get(name, IMAGENET_1K)
    if variant is not None and variant not in variants:
        if not variants:
            raise UsageError(f"{hub_id} has no variants; leave --variant out")
        raise unknown_choice("variant", variant, variants)
    chosen = variant or next(iter(variants), None)
    try:
        layout = open_hugging_face(hub_id, chosen, columns)
    except HubUnreachable as error:
        raise HubUnreachable(
            f"no data for {name}: {error}. Three ways to go on: (1) connect once, or set HF_HOME to a cache that has "
            f"it; (2) give --data PATH, a local copy as image folder, parquet or WebDataset shards; (3) use other "
            f"data, --source {', '.join(prefixes())} or digits"
        ) from error
    return layout, _hub_variant(layout, chosen)


def _hub_variant(layout: Layout, variant: str | None) -> str:
    revision = getattr(layout, "revision", None)
    return " ".join([layout.location, *([variant] if variant else []), *([f"revision {revision}"] if revision else [])])
