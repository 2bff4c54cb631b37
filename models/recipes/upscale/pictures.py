"""Pairs for training: a sharp picture of 128×128 and what a careless world made of it, 32×32.

The sharp ones are the composed pictures of the sticker model and drawings of curves and polygons, whose edges and ramps
are exact at any size. Number n of a sequence is always the same.
"""

import collections
import io
import math
import multiprocessing
import os
import random
import sys

import numpy
import torch
from PIL import Image, ImageDraw, ImageFilter

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "stickers"))
import compose

SIDE, SCALE = 128, 4
FILTERS = (Image.BOX, Image.BILINEAR, Image.HAMMING, Image.BICUBIC, Image.LANCZOS)
BOOK = None


def drawing(draw):
    """RGB picture of overlapping shapes, drawn four times too large and reduced, so that edges are smooth."""
    big = 4 * SIDE
    y, x = numpy.mgrid[0:big, 0:big] / (big - 1)
    angle = draw.uniform(0, 2 * math.pi)
    ramp = ((x - 0.5) * math.cos(angle) + (y - 0.5) * math.sin(angle) + 0.7)[..., None] / 1.4
    one, other = (numpy.array([draw.randint(0, 255) for _ in range(3)], float) for _ in range(2))
    image = Image.fromarray((one * (1 - ramp) + other * ramp).clip(0, 255).astype(numpy.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(draw.randint(2, 9)):
        fill = tuple(draw.randint(0, 255) for _ in range(3))
        place = [draw.randint(-40, big + 40) for _ in range(2)]
        size = draw.randint(16, big // 2)
        kind = draw.randrange(4)
        if kind == 0:
            pen.ellipse((place[0], place[1], place[0] + size, place[1] + draw.randint(16, big // 2)), fill=fill)
        elif kind == 1:
            turns = sorted(draw.uniform(0, 2 * math.pi) for _ in range(draw.randint(3, 7)))
            pen.polygon([(place[0] + size * math.cos(t), place[1] + size * math.sin(t)) for t in turns], fill=fill)
        elif kind == 2:
            ends = [tuple(draw.randint(0, big) for _ in range(2)) for _ in range(draw.randint(2, 4))]
            pen.line(ends, fill=fill, width=draw.randint(3, 40), joint="curve")
        else:
            pen.arc((place[0], place[1], place[0] + size, place[1] + size), draw.randint(0, 180), draw.randint(181, 360), fill=fill, width=draw.randint(4, 40))  # fmt: skip
    return image.resize((SIDE, SIDE), Image.BOX)


def degraded(picture, draw):
    """32×32 of an RGB picture of 128×128: blurred, reduced, with noise, compressed, each only sometimes."""
    if draw.random() < 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(draw.uniform(0.3, 2.2)))
    small = picture.resize((SIDE // SCALE, SIDE // SCALE), draw.choice(FILTERS))
    if draw.random() < 0.2:
        noise = numpy.random.default_rng(draw.getrandbits(32)).normal(0, draw.uniform(1, 8), (SIDE // SCALE, SIDE // SCALE, 3))
        small = Image.fromarray((numpy.asarray(small) + noise).round().clip(0, 255).astype(numpy.uint8))
    if draw.random() < 0.25:
        file = io.BytesIO()
        small.save(file, "JPEG", quality=draw.randint(40, 95))
        small = Image.open(file).convert("RGB")
    return small


def sharp(seed, number):
    draw = random.Random(f"sharp {seed} {number}")
    if not BOOK.held and draw.random() < 0.25:
        return drawing(draw)
    picture = Image.fromarray(BOOK.render(BOOK.spec(seed, number)))
    turns = draw.randrange(8)
    if turns & 4:
        picture = picture.transpose(Image.FLIP_LEFT_RIGHT)
    return picture.rotate(90 * (turns & 3))


def open_book(folder, held):
    global BOOK
    torch.set_num_threads(1)
    BOOK = compose.Book(folder, held)


def draw_pairs(job):
    """uint8 [count, 128, 128, 3] and [count, 32, 32, 3]."""
    seed, first, count = job
    large = [sharp(seed, first + index) for index in range(count)]
    small = [degraded(picture, random.Random(f"small {seed} {first + index}")) for index, picture in enumerate(large)]
    return numpy.stack([numpy.asarray(picture) for picture in large]), numpy.stack([numpy.asarray(picture) for picture in small])


def tensor(pictures):
    """float32 [B, 3, H, W] in 0…1."""
    return torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy()).float().div_(255)


class Pairs:
    """Pairs drawn by a process of its own ahead of need. A with-block ends it."""

    def __init__(self, folder, seed, batch, first=0, held=False, ahead=6):
        self.seed, self.batch, self.next, self.ahead = seed, batch, first, ahead
        self.pool = multiprocessing.get_context("fork").Pool(1, open_book, (folder, held))
        self.waiting = collections.deque()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pool.terminate()

    def get(self):
        while len(self.waiting) < self.ahead:
            self.waiting.append(self.pool.apply_async(draw_pairs, ((self.seed, self.next, self.batch),)))
            self.next += self.batch
        large, small = self.waiting.popleft().get()
        return tensor(large), tensor(small)
