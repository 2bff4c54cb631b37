"""Draws a contact sheet from the averaged weights: prompts from the command line, a file, or held-out specs."""

import argparse
import os

import torch

import compose
import model
import narrow
import sheet
import tokenizer
import train
import unet_stage
import weights


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="the folder of the training run")
    parser.add_argument("--to", default="samples.png")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--held", type=int, default=0, help="draw this many plain prompts of held-out (thing, style) pairs")
    parser.add_argument("--things", help="file of things that --held takes its pairs from")
    parser.add_argument("prompts", nargs="*")
    options = parser.parse_args()
    network = model.Stickers()
    network.load_state_dict(weights.read(os.path.join(options.out, "unet-average.safetensors")))
    prompts = options.prompts or unet_stage.PROMPTS
    if options.held:
        book = compose.Book(options.out, held=True)
        entries = narrow.entries(book, narrow.read_things(options.things)) if options.things else book.sticker_entries
        step = max(1, len(entries) / options.held)
        chosen = [entries[int(number * step)] for number in range(min(options.held, len(entries)))]
        prompts = [f"{entry['name']}, {compose.STYLES[entry['style']][0][0]} style" for entry in chosen]
    with torch.no_grad():
        drawn = unet_stage.pictures(network, train.load_vae(options), tokenizer.load(options.out), prompts,
                                    unet_stage.scale_of(options.out), options.steps, options.guidance, options.seed)  # fmt: skip
    sheet.save(options.to, drawn, prompts)


if __name__ == "__main__":
    main()
