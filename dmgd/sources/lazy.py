"""A source whose classes are known, and whose data is opened when it is first read."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

from dmgd.classes.info import ClassInfo
from dmgd.sources.labelled import LabelledSource
from dmgd.sources.source import Source, SourceImage
from dmgd.specs import SourceSpec


class LazySource(Source):
    """The source that `opened` opens: what it may raise is raised by whatever reads images. `variant` reads the data,
    too."""

    def __init__(
        self, spec: SourceSpec, licence: str, classes: Sequence[ClassInfo], opened: Callable[[], LabelledSource]
    ):
        self.spec, self.name, self.licence, self.classes = spec, spec.name, licence, tuple(classes)
        self._open = opened

    def __repr__(self) -> str:
        return f"Source('{self.name}', {len(self.classes)} classes)"

    @cached_property
    def _opened(self) -> LabelledSource:
        return self._open()

    @property
    def variant(self) -> str:  # type: ignore[override]
        return self._opened.variant

    @property
    def labels(self) -> tuple[str, ...]:
        return self._opened.labels

    def images(self, split: str) -> Iterator[SourceImage[int]]:
        return self._opened.images(split)

    def fingerprint(self, split: str) -> str:
        return self._opened.fingerprint(split)

    def extent(self, split: str) -> str:
        return self._opened.extent(split)

    def remarks(self, split: str) -> list[str]:
        return self._opened.remarks(split)
