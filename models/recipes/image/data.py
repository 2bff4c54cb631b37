"""Batches for training: composed pictures for the autoencoder, latents with prompts for the UNet.

Batch number n of a sequence is always the same, so a run goes on exactly where a checkpoint left it.
"""

import collections
import multiprocessing
import os
import random

import numpy
import torch

import compose
import narrow
import tokenizer

BOOK = None


def book_of(folder, things=None, held=False):
    """The pictures of the file of things, or all."""
    return narrow.Book(folder, narrow.read_things(things), held) if things else compose.Book(folder, held)


def open_book(folder, held, things=None):
    global BOOK
    torch.set_num_threads(1)
    BOOK = book_of(folder, things, held)


def draw_pictures(job):
    """uint8 [count, 3, 128, 128] of the specs first … first+count-1 of a sequence."""
    seed, first, count = job
    pictures = [BOOK.render(BOOK.spec(seed, first + number)) for number in range(count)]
    return numpy.stack(pictures).transpose(0, 3, 1, 2).copy()


class Pictures:
    """Composed pictures, drawn by processes of their own ahead of need. A with-block ends them."""

    def __init__(self, folder, seed, batch, first=0, held=False, ahead=6, processes=1, things=None):
        self.seed, self.batch, self.next = seed, batch, first
        self.pool = multiprocessing.get_context("fork").Pool(processes, open_book, (folder, held, things))
        self.waiting = collections.deque()
        self.ahead = ahead

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pool.terminate()

    def get(self):
        """Batch as float32 [B, 3, 128, 128] in -1…1."""
        while len(self.waiting) < self.ahead:
            self.waiting.append(self.pool.apply_async(draw_pictures, ((self.seed, self.next, self.batch),)))
            self.next += self.batch
        return normal(self.waiting.popleft().get())


def normal(pictures):
    return torch.from_numpy(pictures).float().div_(127.5).sub_(1)


def folder_of(folder, things):
    return os.path.join(folder, "narrow" if things else "latents")


class Latents:
    """Shards of latents made by `train.py --stage latents`, of all things or of a file's: shard-NNN.npy float16 [4096, 4, 16, 16] of specs of seed SEED."""

    SEED, SIZE = 7, 4096

    def __init__(self, folder, batch, things=None, drop=0.1, focus=None):
        self.batch, self.drop = batch, drop
        self.book = book_of(folder, things)
        latents = folder_of(folder, things)
        self.coder = tokenizer.load(folder)
        names = sorted(name for name in os.listdir(latents) if name.startswith("shard-"))
        self.shards = [numpy.load(os.path.join(latents, name), mmap_mode="r") for name in names]
        self.wanted = numpy.arange(len(self.shards) * self.SIZE)
        if focus:
            chosen = narrow.read_things(focus)
            specs = (self.book.spec(self.SEED, int(n)) for n in self.wanted)
            self.wanted = self.wanted[[narrow.within(spec, chosen) for spec in specs]]
        self.total = len(self.wanted)
        self.order = (None, None)

    def get(self, step):
        """Latents float32 [B, 4, 16, 16] and ids [B, L] of a step; the prompts differ from epoch to epoch."""
        per_epoch = self.total // self.batch
        epoch, place = divmod(step, per_epoch)
        if self.order[0] != epoch:
            self.order = epoch, numpy.random.default_rng(epoch).permutation(self.total)
        numbers = self.wanted[self.order[1][place * self.batch : (place + 1) * self.batch]]
        latents = numpy.stack([self.shards[n // self.SIZE][n % self.SIZE] for n in numbers]).astype(numpy.float32)
        draw = random.Random(f"drop {step}")
        ids = []
        for n in numbers:
            text = "" if draw.random() < self.drop else self.book.prompt(self.book.spec(self.SEED, int(n)), f"{epoch} {n}")
            ids.append(self.coder.pad(text))
        return torch.from_numpy(latents), torch.tensor(ids)
