"""A network that says which thing a picture shows, and in which style: trained on the real pictures that training saw, on
any background, shifted, scaled, mirrored, turned and blurred. Held-out pairs of thing and style stay unknown to it, so
its own score on their real pictures tells how far to trust it."""

import argparse
import collections
import multiprocessing
import os
import random
import time

import numpy
import torch
from torch import nn
import torch.nn.functional as F

import compose
import data
import narrow
from vae import Conv

STYLES = (*compose.STYLE_ORDER, "pixel")
BATCH = 64
NAMES = {}  # of this process and those it makes


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first, self.second = Conv(inputs, outputs, 3, stride, 1, bias=False), Conv(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(16, outputs), nn.GroupNorm(16, outputs)])
        self.short = Conv(inputs, outputs, 1, bias=False)
        self.stride = stride

    def forward(self, x):
        h = self.norms[0](self.first(x).float()).relu_().to(x.dtype)
        h = self.norms[1](self.second(h).float()).to(x.dtype)
        return F.relu_(h + self.short(F.avg_pool2d(x, self.stride)))


class Judge(nn.Module):
    """Logits of the things and of the six styles for pictures float32 [B, 3, 128, 128] in -1…1."""

    def __init__(self, things):
        super().__init__()
        torch.manual_seed(3)
        self.stem = Conv(3, 48, 5, 2, 2)
        self.blocks = nn.Sequential(Block(48, 64, 2), Block(64, 128, 2), Block(128, 192, 2), Block(192, 320, 2))
        self.mixed = nn.Linear(320, 320)
        self.thing, self.style = nn.Linear(320, things), nn.Linear(320 + 48, len(STYLES))

    def forward(self, pictures):
        early = F.relu_(self.stem(F.avg_pool2d(pictures, 2).to(torch.bfloat16, memory_format=torch.channels_last)))
        states = self.blocks(early).float().mean((2, 3))
        fine = early.float().var((2, 3)).sqrt()
        return self.thing(self.mixed(F.dropout(states, 0.2, self.training)).relu()), self.style(torch.cat((states, fine), 1))


def things(path):
    """The number of each thing of a file."""
    return {name: number for number, name in enumerate(sorted(narrow.read_things(path)))}


def portrait(entry, style, draw):
    """The spec of one thing alone, as an evaluation prompt asks for it, varied by draw."""
    thing = {"entry": entry, "style": style, "colour": None, "turn": 0.0, "outline": False, "mirror": draw.random() < 0.3,
             "tilt": draw.uniform(-8, 8) if style != "pixel" and draw.random() < 0.5 else 0}  # fmt: skip
    colour = tuple(draw.randint(0, 255) for _ in range(3))
    background = {"kind": "plain", "rgb": colour} if draw.random() < 0.5 else {"kind": "white", "said": False}
    return {"things": [thing], "relation": None, "size": "huge" if draw.random() < 0.2 else "normal", "place": None,
            "background": background, "grow": draw.uniform(0.75, 1), "shift": (draw.uniform(-2, 2), draw.uniform(-2, 2))}  # fmt: skip


def draw_batch(number):
    """Pictures uint8 [B, 3, 128, 128] with numbers of things and styles."""
    book, draw, pictures, labels = data.BOOK, random.Random(f"judge {number}"), [], []
    names = NAMES
    entries = narrow.entries(book, names)
    for _ in range(BATCH):
        entry = draw.choice(entries)
        style = entry["style"]
        if entry["style"] in ("noto", "twemoji", "fluentflat") and draw.random() < 0.15 and not compose.hash_held(entry["thing"], "pixel"):
            style = "pixel"
        pictures.append(book.render(portrait(entry, style, draw)))
        labels.append((names[entry["thing"]], STYLES.index(style)))
    return numpy.stack(pictures).transpose(0, 3, 1, 2).copy(), numpy.array(labels)


def blurred(pictures, number):
    """As the autoencoder leaves pictures: less sharp, more or less."""
    draw = random.Random(f"blur {number}")
    choice = draw.random()
    if choice < 0.35:
        return pictures
    if choice < 0.7:
        return F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, 1)
    small = F.interpolate(pictures, size=draw.choice((40, 48, 64)), mode="area")
    return F.interpolate(small, size=compose.SIDE, mode="bilinear", align_corners=False)


def held_pictures(folder, names):
    """Real pictures of all held-out pairs of these things on white, with their labels."""
    book, draw = compose.Book(folder, held=True), random.Random("held")
    entries = narrow.entries(book, names)
    specs = [portrait(entry, entry["style"], draw) for entry in entries]
    for spec in specs:
        spec["background"], spec["things"][0]["mirror"], spec["grow"] = {"kind": "white", "said": False}, False, 0.95
    labels = [(names[entry["thing"]], STYLES.index(entry["style"])) for entry in entries]
    return data.normal(numpy.stack([book.render(spec) for spec in specs]).transpose(0, 3, 1, 2).copy()), torch.tensor(labels)


@torch.no_grad()
def score(network, pictures, labels):
    """Shares of pictures with the right thing first, among five, and with the right style."""
    network.eval()
    found = [network(part) for part in pictures.split(64)]
    network.train()
    thing, style = (torch.cat([pair[place] for pair in found]) for place in (0, 1))
    order = thing.topk(5).indices == labels[:, :1]
    return {"first": order[:, 0].float().mean().item(), "in five": order.any(1).float().mean().item(),
            "style": (style.argmax(1) == labels[:, 1]).float().mean().item()}  # fmt: skip


def load(folder, names):
    network = Judge(len(names))
    network.load_state_dict(torch.load(os.path.join(folder, "judge.pt"))["network"])
    return network.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="the folder prepare.py wrote")
    parser.add_argument("--things", required=True, help="file of the things to tell apart")
    parser.add_argument("--steps", type=int, default=4000, help=f"of {BATCH} pictures")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    NAMES.update(things(options.things))
    real = held_pictures(options.out, NAMES)
    network = Judge(len(NAMES))
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, (0.9, 0.98), weight_decay=0.02)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, options.steps, 0.1)
    began, losses = time.time(), []
    with multiprocessing.get_context("fork").Pool(1, data.open_book, (options.out, False)) as pool:
        waiting = collections.deque(pool.apply_async(draw_batch, (number,)) for number in range(8))
        for step in range(1, options.steps + 1):
            waiting.append(pool.apply_async(draw_batch, (step + 7,)))
            pictures, labels = waiting.popleft().get()
            labels = torch.from_numpy(labels)
            thing, style = network(blurred(data.normal(pictures), step))
            loss = F.cross_entropy(thing, labels[:, 0], label_smoothing=0.1) + 0.3 * F.cross_entropy(style, labels[:, 1])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            plan.step()
            losses.append(loss.item())
            if step % 250 == 0:
                print(f"step {step} loss {sum(losses) / len(losses):.3f} seconds {time.time() - began:.0f} held-out real pictures {score(network, *real)}", flush=True)  # fmt: skip
                losses = []
            if step % 500 == 0 or step == options.steps:
                torch.save({"network": network.state_dict(), "steps": step}, os.path.join(options.out, "judge.pt"))


if __name__ == "__main__":
    main()
