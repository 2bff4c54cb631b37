"""Contact sheets: pictures in a grid with a line or two of text below each."""

import textwrap

import numpy
from PIL import Image, ImageDraw, ImageFont

FONTS = ("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc", "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")


def font(size):
    for path in FONTS:
        try:
            return ImageFont.truetype(path, size)
        except OSError:
            continue
    return ImageFont.load_default()


def save(path, pictures, labels=None, columns=8):
    """Writes uint8 [N, H, W, 3] pictures as a PNG."""
    height, width = pictures[0].shape[:2]
    strip = 38 if labels else 0
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + 6), rows * (height + strip + 6)), (225, 225, 225))
    pen, face = ImageDraw.Draw(sheet), font(10)
    for number, picture in enumerate(pictures):
        x, y = number % columns * (width + 6) + 3, number // columns * (height + strip + 6) + 3
        sheet.paste(Image.fromarray(numpy.ascontiguousarray(picture)), (x, y))
        if labels:
            pen.multiline_text((x, y + height), "\n".join(textwrap.wrap(labels[number], 24)[:3]), (0, 0, 0), face, spacing=-2)
    sheet.save(path)
