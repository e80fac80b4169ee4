"""Several sets side by side in one image: one row per class, one group of columns per set."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dmgd.evaluation.imageset import ImageSet

GAP, APART = 2, 12  # pixels between images, and between groups
LEFT, TOP, LETTERS = 170, 30, 16


def contact_sheet(sets: Sequence[ImageSet], each: int) -> Image.Image:
    """The first `each` images of every class of sets with the same image size, below the sets' names."""
    size, classes = sets[0].images.shape[-1], sets[0].classes
    pitch = size + GAP
    font = ImageFont.load_default(LETTERS)
    group = APART + max(each * pitch, *(round(font.getlength(shown.name)) for shown in sets))
    sheet = Image.new("RGB", (LEFT + len(sets) * group, TOP + len(classes) * pitch), "white")
    draw = ImageDraw.Draw(sheet)
    for c, info in enumerate(classes):
        draw.text((4, TOP + c * pitch + size // 2), info.name.split(",")[0], "black", font, anchor="lm")
    for s, shown in enumerate(sets):
        left = LEFT + s * group
        draw.text((left, TOP // 2), shown.name, "black", font, anchor="lm")
        for c in range(len(classes)):
            own = shown.images[shown.labels == c][:each].permute(0, 2, 3, 1).numpy()
            for i, pixels in enumerate(own):
                sheet.paste(_picture(pixels), (left + i * pitch, TOP + c * pitch))
    return sheet


def _picture(pixels: np.ndarray) -> Image.Image:
    """uint8 (h, w, c), grey or RGB."""
    return Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
