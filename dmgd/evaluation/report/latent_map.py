"""The map of real and made images: points in two principal components, with the images on hover, tap or arrow keys."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy import ndarray

from dmgd.evaluation.examples import Examples
from dmgd.evaluation.imageset import ImageSet
from dmgd.evaluation.report.pictures import is_small, picture_url, sheet
from dmgd.evaluation.report.rows import first_synonyms

NAMED = 12  # classes that have a colour and a name on the map; of more, only the two sets do
WIDTH, HEIGHT, MARGIN = 1000, 560, 20
COLUMNS = 25
LETTER, LINE, LONG = 11, 24, 4  # of labels: the width and height of a letter on the map, and too many for a phone
BYTES = 900_000  # of the sheet of images


def latent_map(examples: Examples, names: Sequence[str], shown: Sequence[int]) -> str:
    """The map as HTML; empty without coordinates."""
    placed, real = examples.map, examples.real
    if placed is None or real is None:
        return ""
    made, names = examples.sets[0], first_synonyms(names)
    everything = np.concatenate([placed.real, placed.made]).astype(float)
    low, extent = everything.min(0), np.where(np.ptp(everything, 0) == 0, 1, np.ptp(everything, 0))
    at = MARGIN + (everything - low) / extent * (WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN)
    at[:, 1] = HEIGHT - at[:, 1]
    colours = _colours(shown)
    drawn = _points(real, at[: len(real)], 0, names, colours) + _points(
        made, at[len(real) :], len(real), names, colours
    )
    labels = _labels(real, at, names, colours)
    pictures = [*real.images.permute(0, 2, 3, 1).numpy(), *made.images.permute(0, 2, 3, 1).numpy()]
    crisp = "crisp" if is_small(pictures[0]) else ""
    axes = [
        f"principal component {i + 1} ({100 * share:.0f} % of the variance)" for i, share in enumerate(placed.shares)
    ]
    said = (
        f"Map of {len(real)} real images and {len(made)} of {made.name} in {placed.space}; arrow keys go through them"
    )
    return (
        f'<figure class="map" {_sheet(pictures)}>{_key(made.name, names, colours)}'
        f'<div class="frame" tabindex="0" role="group" aria-label="{escape(said)}">'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" aria-hidden="true">{drawn}</svg>{labels}'
        f'<span class="x-title">{axes[0]}</span><span class="y-title">{axes[1]}</span></div>'
        f'<div class="tip" role="status" hidden><i class="{crisp}"></i><span></span></div></figure>'
    )


def _points(data: ImageSet, at: ndarray, first: int, names: Sequence[str], colours: dict[int, str]) -> str:
    """A point for each image; round ones are real, square ones with a rim are made. They keep their size however wide
    the map is, as they are the caps of lines without length."""
    is_real, drawn = first == 0, []
    for i, ((x, y), label) in enumerate(zip(at, data.labels.tolist(), strict=True)):
        place = f'd="M{x:.0f} {y:.0f}h.01" data-c="{label}"'
        said = f"{names[label]}, {'real' if is_real else data.name}"
        if not is_real:
            drawn.append(f'<path class="rim" {place}/>')
        colour = colours.get(label, "var(--c7)" if is_real else "var(--c0)")
        kind = "" if is_real else ' class="made"'
        drawn.append(
            f'<path{kind} {place} data-i="{first + i}" style="--p:{colour}"><title>{escape(said)}</title></path>'
        )
    return "".join(drawn)


def _labels(real: ImageSet, at: ndarray, names: Sequence[str], colours: dict[int, str]) -> str:
    """The names of classes at the medians of their real images; none over another one."""
    labels, drawn, taken = real.labels.numpy(), "", list[tuple[float, float, float]]()
    for c in colours:
        own, name = at[: len(labels)][labels == c], names[c]
        if len(own) == 0:
            continue
        (x, y), half = np.median(own, 0), LETTER * len(name) / 2
        if all(abs(x - other) > half + its_half or abs(y - height) > LINE for other, height, its_half in taken):
            taken.append((x, y, half))
            kind = "label" if len(name) < LONG else "label long"
            place = f"left:{100 * x / WIDTH:.1f}%;top:{100 * y / HEIGHT:.1f}%"
            drawn += f'<span class="{kind}" aria-hidden="true" style="{place}">{escape(name)}</span>'
    return drawn


def _colours(shown: Sequence[int]) -> dict[int, str]:
    """Hues at even distances; none for more classes than can be told apart."""
    if len(shown) > NAMED:
        return {}
    return {c: f"hsl({360 * i / len(shown):.0f} 65% 50%)" for i, c in enumerate(shown)}


def _key(made: str, names: Sequence[str], colours: dict[int, str]) -> str:
    """Real and made, and classes as buttons that let the others fade."""
    pale, accent = ("var(--soft)", "var(--paper)") if colours else ("var(--c7)", "var(--c0)")
    items = [
        f'<li><span class="swatch" style="--p:{pale}"></span>real</li>',
        f'<li><span class="swatch square" style="--p:{accent}"></span>{escape(made)}</li>',
    ]
    items += [
        f'<li><button type="button" data-c="{c}" aria-pressed="false"><span class="swatch" style="--p:{colour}"></span>'
        f"{escape(names[c])}</button></li>"
        for c, colour in colours.items()
    ]
    return f'<ul class="key">{"".join(items)}</ul>'


def _sheet(pictures: Sequence[ndarray]) -> str:
    """The attributes of the map that hold its images: as large as fits."""
    for size in (96, 64, 48, 32, 24, 16, 8):
        data = sheet(pictures, COLUMNS, size)
        if len(data) <= BYTES:
            break
    rows = math.ceil(len(pictures) / COLUMNS)
    return f'data-tile="{picture_url(data)}" data-columns="{COLUMNS}" data-rows="{rows}"'
