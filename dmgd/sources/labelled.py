"""A source from any layout: which of its labels is which class."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from dmgd.classes.imagenet import imagenet_classes, imagenet_subset
from dmgd.classes.info import ClassInfo
from dmgd.classes.matching import NEXT_STEP, match_table
from dmgd.errors import MismatchError, UsageError, unknown_choice
from dmgd.files import canonical_json
from dmgd.images import readable
from dmgd.sources.detect import open_layout
from dmgd.sources.huggingface import HubUnreachable, HuggingFaceLayout, open_hugging_face
from dmgd.sources.labels import classes_from_labels, translate
from dmgd.sources.layout import Layout
from dmgd.sources.source import Item

IMAGENET_LICENCE = "ImageNet terms of access: non-commercial research and education"
UNKNOWN_LICENCE = "unknown; see the data's own terms"


@dataclass(frozen=True)
class HubCopy:
    """Where the Hub has a named source, and its configurations, the default first."""

    id: str
    variants: tuple[str, ...] = ()


_FASTAI = ("full_size", "320px", "160px")
HUB_COPIES = {
    "imagenette": HubCopy("frgfm/imagenette", _FASTAI),
    "imagewoof": HubCopy("frgfm/imagewoof", _FASTAI),
}
IMAGENET_1K = HubCopy("ILSVRC/imagenet-1k")  # the subsets are taken out of it where they have no copy of their own


@dataclass(frozen=True)
class LabelledSource:
    """`rows` maps the data's labels to `classes`, None for classes that are left out. `test` may lie elsewhere."""

    name: str
    variant: str
    licence: str
    classes: tuple[ClassInfo, ...]
    rows: Mapping[str, int | None]
    layout: Layout
    test: Layout | None = None

    def items(self, split: str) -> Iterator[Item]:
        layout, inner = self._where(split)
        left_out = frozenset(label for label, row in self.rows.items() if row is None)
        for found in layout.found(inner, left_out):
            try:
                row = self.rows[found.label]
            except KeyError:
                raise MismatchError(
                    f"{found.name} in {layout.place} has the label {found.label!r}, which the training split lacks; "
                    f"{NEXT_STEP}"
                ) from None
            if row is not None:  # always: the others were skipped
                yield Item(found.image, row, found.name)

    def samples(self, split: str) -> Iterator[tuple[Image, int]]:
        return readable((item.image, item.label) for item in self.items(split))

    def fingerprint(self, split: str) -> str:
        layout, inner = self._where(split)
        matching = {label: self.classes[row].identity for label, row in self.rows.items() if row is not None}
        return hashlib.sha256((layout.fingerprint(inner) + canonical_json(matching)).encode()).hexdigest()

    def _where(self, split: str) -> tuple[Layout, str]:
        """The layout that holds the split, and which of its splits it is."""
        if split == "test" and self.test:
            # Data without a test split is the test split as a whole, which layouts call "train".
            return self.test, "test" if self.test.has_test else "train"
        return self.layout, split


def any_source(
    kind: str, place: str, test_data: str | None, variant: str | None, columns: str | None, class_map: Path | None
) -> LabelledSource:
    """The source `folder:`, `hf:` or `wds:`, whose classes are the data's own labels."""
    layout = open_layout(kind, place, variant, columns)
    test = open_layout(None, test_data, None, columns if kind == "hf" else None) if test_data else None
    classes, rows = classes_from_labels(translate(layout.labels(), class_map, place), place)
    local = kind != "hf" or Path(place).expanduser().exists()
    return LabelledSource(
        name=f"{kind}:{Path(place).name if local else place}",  # where it lies on this machine is nobody's business
        variant=_hub_variant(layout, variant) if not local else "local copy",
        licence=UNKNOWN_LICENCE,
        classes=classes,
        rows=rows,
        layout=layout,
        test=test,
    )


def named_source(
    name: str,
    data: str | None,
    test_data: str | None,
    variant: str | None,
    columns: str | None,
    class_map: Path | None,
) -> LabelledSource:
    """A source of ImageNet's family, from the local copy `data` or from the Hub."""
    table = imagenet_classes() if name == "imagenet-1k" else imagenet_subset(name)
    if data is not None:
        layout = open_layout(None, data, variant, columns)
        described = "local copy"
    else:
        layout, described = _on_the_hub(name, variant, columns)
    test = open_layout(None, test_data, None, None) if test_data else None
    rows = match_table(name, table, translate(layout.labels(), class_map, layout.place), layout.place)
    return LabelledSource(name, described, IMAGENET_LICENCE, tuple(table), rows, layout, test)


def _on_the_hub(name: str, variant: str | None, columns: str | None) -> tuple[HuggingFaceLayout, str]:
    copy = HUB_COPIES.get(name, IMAGENET_1K)
    if variant is not None and variant not in copy.variants:
        if not copy.variants:
            raise UsageError(f"{copy.id} has no variants; leave --variant out")
        raise unknown_choice("variant", variant, copy.variants)
    chosen = variant or (copy.variants[0] if copy.variants else None)
    try:
        layout = open_hugging_face(copy.id, chosen, columns)
    except HubUnreachable as error:
        raise HubUnreachable(
            f"no data for {name}: {error}. Three ways to go on: (1) connect once, or set HF_HOME to a cache that has "
            f"it; (2) give --data PATH, a local copy as image folder, parquet or WebDataset shards; (3) take other "
            f"data, --source folder:PATH, hf:ID_OR_PATH, wds:PATTERN or digits"
        ) from error
    return layout, _hub_variant(layout, chosen)


def _hub_variant(layout: Layout, variant: str | None) -> str:
    revision = getattr(layout, "revision", None)
    return " ".join([layout.place, *([variant] if variant else []), *([f"revision {revision}"] if revision else [])])
