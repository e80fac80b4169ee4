"""scikit-learn's handwritten digits: 1,797 grey images of 8×8, the test set of a UCI dataset."""

import hashlib
from collections.abc import Iterator

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from dmgd.classes.info import ClassInfo
from dmgd.sources.source import Source, SourceImage
from dmgd.specs import DIGITS, SourceSpec

TEST_IMAGES = 540


class DigitsSource(Source):
    """The digits with a fixed stratified split, 1,257 for training and 540 for testing."""

    spec = SourceSpec(DIGITS)
    name = DIGITS
    variant = "scikit-learn, split 1257/540"
    licence = "UCI Optical Recognition of Handwritten Digits, CC BY 4.0"
    classes = tuple(ClassInfo(str(digit)) for digit in range(10))

    def __init__(self) -> None:
        bunch = load_digits()
        train, test = train_test_split(
            np.arange(len(bunch.target)), test_size=TEST_IMAGES, stratify=bunch.target, random_state=0
        )
        self._rows = {"train": np.sort(train), "test": np.sort(test)}
        self._images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
        self._labels = bunch.target.astype(int)

    def images(self, split: str) -> Iterator[SourceImage[int]]:
        for row in self._rows[split]:
            yield SourceImage(Image.fromarray(self._images[row]), int(self._labels[row]), f"row {row}")

    def fingerprint(self, split: str) -> str:
        rows = self._rows[split]
        return hashlib.sha256(self._images[rows].tobytes() + self._labels[rows].astype("<i8").tobytes()).hexdigest()
