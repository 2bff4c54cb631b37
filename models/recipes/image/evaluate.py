"""Measures a run's averaged weights by what they draw, and prints the figures of the model card as JSON.

Things and styles are told by judge.py's network (train it first), backgrounds by the colours along the border. Prompts
are fixed: every nth pair of thing and style, as "{name}, {style} style"; seeds count from 1. The judge's score on real
pictures, and on real pictures that went through the autoencoder, is printed beside each share.
"""

import argparse
import json
import os

import numpy
import torch

import compose
import judge
import model
import narrow
import sheet
import tokenizer
import train
import unet_stage
import weights

CLEAR = ("white", "black", "grey", "red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink", "brown")


def spread(entries, count):
    """count of the entries, evenly spaced."""
    count = min(count, len(entries))
    return [entries[int(number * len(entries) / count)] for number in range(count)]


def worded(entry):
    return f"{entry['name']}, {compose.STYLES[entry['style']][0][0]} style"


def border(picture):
    """Median colour of the outermost pixels of uint8 [128, 128, 3]."""
    edge = numpy.concatenate((picture[:4].reshape(-1, 3), picture[-4:].reshape(-1, 3), picture[:, :4].reshape(-1, 3), picture[:, -4:].reshape(-1, 3)))  # fmt: skip
    return numpy.median(edge, 0)


def named(colour):
    """The colour word whose colour is nearest."""
    return min(compose.COLOURS, key=lambda entry: sum((float(a) - b) ** 2 for a, b in zip(colour, entry[2])))[0]


class Artist:
    def __init__(self, options):
        self.network = model.Stickers()
        self.network.load_state_dict(weights.read(os.path.join(options.out, "unet-average.safetensors")))
        if options.few:
            self.network.load_state_dict(weights.read(os.path.join(options.out, "few-average.safetensors")), strict=False)
        self.network.eval()
        self.autoencoder, self.coder = train.load_vae(options), tokenizer.load(options.out)
        self.scale, self.options = unet_stage.scale_of(options.out), options

    def draw(self, prompts, first=1):
        """uint8 [N, 128, 128, 3]."""
        parts = []
        with torch.no_grad():
            for start in range(0, len(prompts), 32):
                part = prompts[start : start + 32]
                parts.append(unet_stage.pictures(self.network, self.autoencoder, self.coder, part, self.scale,
                                                 self.options.steps, self.options.guidance, first + start))  # fmt: skip
        return numpy.concatenate(parts)


def recognised(artist, network, entries, numbers):
    """Scores of drawings of the entries, and the drawings."""
    drawn = artist.draw([worded(entry) for entry in entries])
    labels = torch.tensor([(numbers[entry["thing"]], judge.STYLES.index(entry["style"])) for entry in entries])
    found = judge.score(network, judge.data.normal(drawn.transpose(0, 3, 1, 2).copy()), labels)
    network.eval()
    return percents(found), drawn


def percents(found):
    return {name: round(100 * value, 1) for name, value in found.items()}


@torch.no_grad()
def ceilings(artist, network, folder, names):
    """The judge on real held-out pictures, as they are and through the autoencoder."""
    pictures, labels = judge.held_pictures(folder, names)
    through = torch.cat([artist.autoencoder.decode(artist.autoencoder.encode(part)).clamp(-1, 1) for part in pictures.split(32)])
    return percents(judge.score(network, pictures, labels)), percents(judge.score(network, through, labels))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="the folder of the training run")
    parser.add_argument("--things", required=True, help="file of the things to ask for, the one given to judge.py")
    parser.add_argument("--few", action="store_true", help="the student of stage few; give --steps 4 --guidance 1 as well")
    parser.add_argument("--count", type=int, default=256, help="prompts of each kind")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--sheet", help="where to write the contact sheet of the first 64 held-out prompts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    numbers = judge.things(options.things)
    artist, network = Artist(options), judge.load(options.out, numbers)
    held, seen = (narrow.entries(compose.Book(options.out, held=part), numbers) for part in (True, False))
    report = {"steps": options.steps, "guidance": options.guidance, "prompts": {"held-out pairs": min(options.count, len(held)), "seen pairs": options.count}, "things": len(numbers)}
    report["judge on real held-out pictures"], report["the same through the autoencoder"] = ceilings(artist, network, options.out, numbers)
    report["held-out pairs"], drawn = recognised(artist, network, spread(held, options.count), numbers)
    report["seen pairs"], _ = recognised(artist, network, spread(seen, options.count), numbers)
    chosen = spread(seen, options.count)
    colours = [CLEAR[number % len(CLEAR)] for number in range(len(chosen))]
    prompts = [f"{compose.article(entry['name'])} on {compose.article(colour)} background" for entry, colour in zip(chosen, colours)]
    right = [named(border(picture)) == colour for picture, colour in zip(artist.draw(prompts, 1001), colours)]
    report["background colours right"] = round(100 * sum(right) / len(right), 1)
    if options.sheet:
        prompts = [worded(entry) for entry in spread(held, 64)]
        for number, entry in enumerate(spread(held, 64 - len(prompts))):  # the same on other backgrounds, to make them 64
            prompts.append(f"{worded(entry)}, {CLEAR[number % len(CLEAR)]} background")
        sheet.save(options.sheet, artist.draw(prompts), prompts)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
