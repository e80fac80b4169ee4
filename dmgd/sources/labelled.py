"""A source from any layout: its labels matched to classes by WordNet id, by name or by a class map."""

import csv
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dmgd.classes.imagenet import imagenet_classes
from dmgd.classes.info import ClassInfo, is_wnid, natural_key
from dmgd.classes.matching import NEXT_STEP
from dmgd.errors import MismatchError, UsageError, listed
from dmgd.files import canonical_json, load_json, open_regular
from dmgd.sources.source import Layout, Source, SourceImage, label_text
from dmgd.specs import SourceSpec


@dataclass(frozen=True, repr=False)
class LabelledSource(Source):
    """`rows` maps the data's labels to class indices (None: left out). `test` is separate test data, if any."""

    spec: SourceSpec
    name: str
    variant: str
    licence: str
    classes: tuple[ClassInfo, ...]
    rows: Mapping[str, int | None]
    layout: Layout
    test: Layout | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.rows)

    def images(self, split: str) -> Iterator[SourceImage[int]]:
        layout, inner = self._where(split)
        left_out = frozenset(label for label, row in self.rows.items() if row is None)
        for one in layout.images(inner, left_out):
            row = self.rows.get(one.label)
            if row is None:  # the labels that are left out were skipped
                raise MismatchError(
                    f"{one.name} in {layout.location} has the label {one.label!r}, which the training split lacks; "
                    f"{NEXT_STEP}"
                )
            yield SourceImage(one.image, row, one.name)

    def fingerprint(self, split: str) -> str:
        layout, inner = self._where(split)
        matching = {label: self.classes[row].identity for label, row in self.rows.items() if row is not None}
        return hashlib.sha256((layout.fingerprint(inner) + canonical_json(matching)).encode()).hexdigest()

    def extent(self, split: str) -> str:
        layout, inner = self._where(split)
        return layout.extent(inner) if hasattr(layout, "extent") else ""  # layouts of others need none

    def remarks(self, split: str) -> list[str]:
        layout, inner = self._where(split)
        return layout.remarks(inner)

    def _where(self, split: str) -> tuple[Layout, str]:
        """The layout that holds the split, and the split's name there."""
        if split == "test" and self.test:
            # Separate test data without a test split of its own: all of it, which layouts call "train".
            return self.test, "test" if self.test.has_test else "train"
        return self.layout, split


def read_mapping(
    path: Path,
    called: str = "the class map",
    values: str = "classes",
    check: Callable[[str, str], str] = label_text,
) -> dict[str, str]:
    """The mapping from labels to `values` in a JSON object or a two-column CSV file, `called` so in messages. Raises
    UsageError if the file is neither, or maps a label twice, and what `check` raises of a value and its file."""
    try:
        if path.suffix.lower() == ".json":
            mapping = load_json(path)
            if not isinstance(mapping, dict) or not all(isinstance(target, str) for target in mapping.values()):
                raise ValueError("its values are not all texts")
            pairs = list(mapping.items())
        else:
            with open_regular(path) as file:
                lines = file.read().decode("utf-8-sig").splitlines()
            pairs = [(label.strip(), target.strip()) for label, target in filter(None, csv.reader(lines))]
    except FileNotFoundError as error:
        raise UsageError(f"{called} {path} does not exist") from error
    except OSError as error:
        raise UsageError(f"{called} {path} cannot be read: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise UsageError(f"{called} {path} is neither a JSON object of texts nor a two-column CSV ({error})") from error
    where = f"{called} {path}"
    texts = [(label_text(label, where), check(target, where)) for label, target in pairs]
    if twice := sorted({label for label, target in texts if dict(texts)[label] != target}):
        raise UsageError(f"{where} maps a label to two {values}: {listed(twice)}")
    return dict(texts)


def translate(labels: Sequence[str], class_map: str | None, location: str) -> dict[str, str]:
    """Each label and what the class map maps it to; itself where the map lacks it or there is none.

    Raises UsageError if the map has labels that the data lacks: most likely a typo.
    """
    mapping = read_mapping(Path(class_map)) if class_map else {}
    if unknown := sorted(set(mapping) - set(labels)):
        raise UsageError(f"the class map {class_map} has labels that {location} lacks: {listed(unknown)}")
    return {label: mapping.get(label, label) for label in labels}


def classes_from_labels(texts: Mapping[str, str], location: str) -> tuple[tuple[ClassInfo, ...], dict[str, int | None]]:
    """A class for every label, sorted by WordNet id or name, and each label's class index.

    A WordNet id of ImageNet gets its readable name. Raises MismatchError if two labels mean the same class.
    """
    by_wnid = {info.wnid: info for info in imagenet_classes()}
    infos = {
        label: by_wnid.get(text) or ClassInfo(text, text if is_wnid(text) else None) for label, text in texts.items()
    }
    ordered = sorted(infos, key=lambda label: natural_key(infos[label].identity))
    identities = [infos[label].identity for label in ordered]
    if twice := sorted({one for one in identities if identities.count(one) > 1}):
        raise MismatchError(f"several labels of {location} mean the same class: {listed(twice)}; {NEXT_STEP}")
    return tuple(infos[label] for label in ordered), {label: row for row, label in enumerate(ordered)}
