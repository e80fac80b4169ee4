"""For each class a strip of real images and of those of every set, side by side."""

import math
from collections.abc import Sequence
from html import escape

from numpy import ndarray

from dmgd.evaluation.examples import Examples, examples_from
from dmgd.evaluation.imageset import ImageSet
from dmgd.evaluation.report.pictures import is_small, picture_url, strip
from dmgd.evaluation.report.rows import first_synonyms

WIDTH = 1000  # CSS pixels that all strips of a class have side by side
LEAST, LARGEST = 50, 64  # CSS pixels of an image
LETTERS = 3_000_000  # of all strips together, in the page
FEW = 30  # classes, that have strips of two lines
SAMPLED = 10  # classes by which the length of all is estimated
# Images of a strip and their pixels, tried in turn until all fit.
SIZES = ((10, 100), (10, 75), (5, 75), (5, 50), (3, 50), (2, 40), (1, 32))


def strips(examples: Examples, names: Sequence[str], shown: Sequence[int]) -> str:
    """A row for each of the `shown` classes. The more sets and classes, the fewer and smaller images."""
    groups = [*([examples.real] if examples.real else []), *examples.sets]
    columns, called = max(2, min(10, WIDTH // (len(groups) * LEAST))), first_synonyms(names)

    def rows(classes: Sequence[int], most: int, size: int) -> list[str]:
        each = min(most, 2 * columns if len(shown) <= FEW else columns)
        found = [examples_from(group, classes, each) for group in groups]
        return [
            f'<div class="class"><h3 title="{escape(names[c])}">{escape(called[c])}</h3>'
            + "".join(_figure(group, own[i], columns, size) for group, own in zip(groups, found, strict=True))
            + "</div>"
            for i, c in enumerate(classes)
        ]

    some = shown[:: math.ceil(len(shown) / SAMPLED)]
    estimates = ((layout, sum(map(len, rows(some, *layout))) * len(shown) / len(some)) for layout in SIZES)
    layout = next((layout for layout, letters in estimates if letters <= LETTERS), SIZES[-1])
    return f'<div style="--groups:{len(groups)};--strip:{columns * LEAST}px">{"".join(rows(shown, *layout))}</div>'


def _figure(group: ImageSet, images: Sequence[ndarray], columns: int, size: int) -> str:
    """The images of a class in one set, of the given size in pixels, and the set's name."""
    content = "<small>none</small>"
    if images:
        width = LARGEST * (min(columns, len(images)) if len(images) > 1 else 2)
        crisp = ' class="crisp"' if is_small(images[0]) else ""
        url = picture_url(strip(images, columns, size))
        content = f'<img{crisp} alt="{len(images)} images: {escape(group.name)}" width="{width}" src="{url}">'
    return f"<figure><figcaption>{escape(group.name)}</figcaption>{content}</figure>"
