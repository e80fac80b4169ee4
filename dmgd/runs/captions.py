"""Names as pixels, in the font that Pillow contains: the same on every machine with the same Pillow."""

import unicodedata
from functools import cache

import numpy as np
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont, features

from dmgd.classes.info import ClassInfo

FONT_SIZE, LINE, LINES, MARGIN = 13, 16, 3, 4
INK, PAPER, PALE = 0, 255, 110

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def caption(number: int, info: ClassInfo, width: int, height: int) -> ndarray:
    """uint8 (height, width), grey on white: the class's number and name, in at most three lines; a longer name ends in
    an ellipsis.

    The font has the letters of English. Accents are left out, and of a name in another script the WordNet id is shown,
    or nothing but the number.
    """
    image = Image.new("L", (width, height), PAPER)
    draw, font = ImageDraw.Draw(image), _font()
    name = _in_ascii(info.name) or info.wnid or ""
    lines = [(line, INK) for line in _wrapped(name, width - 2 * MARGIN, font)]
    if name != str(number):
        lines.insert(0, (str(number), PALE))
    top = max(0, (height - LINE * len(lines)) // 2)
    for row, (text, ink) in enumerate(lines):
        draw.text((MARGIN, top + row * LINE), text, ink, font)
    return np.array(image)


def _in_ascii(name: str) -> str:
    """The name without accents; empty if most of its letters are of another script."""
    plain = unicodedata.normalize("NFKD", name)
    letters = "".join(c if c.isascii() else "?" for c in plain if c.isprintable() and not unicodedata.combining(c))
    return "" if 2 * letters.count("?") > len(letters) else letters


def _wrapped(text: str, width: int, font: Font) -> list[str]:
    """The text in at most three lines of `width` pixels, broken at blanks where there are any."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(word)
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], " ".join(lines[LINES - 1 :])]
    return [_cut(line, width, font) for line in lines]


def _cut(line: str, width: int, font: Font) -> str:
    """The line, or as much of it as fits, with an ellipsis."""
    if font.getlength(line) <= width:
        return line
    kept = next(n for n in range(len(line), -1, -1) if font.getlength(f"{line[:n]}...") <= width)
    return f"{line[:kept].rstrip(' ,')}..."


@cache
def _font() -> Font:
    """Without the shaping of Raqm, which is not everywhere; of fixed size where Pillow was built without FreeType."""
    font = ImageFont.load_default(FONT_SIZE) if features.check("freetype2") else ImageFont.load_default()
    if isinstance(font, ImageFont.FreeTypeFont):
        return font.font_variant(layout_engine=ImageFont.Layout.BASIC)
    return font
