"""Writes the model card (the bundle's README.md) from the figures of evaluate.py and the logs of the stages."""

import argparse
import json
import os
import re

import narrow

CARD = """---
language: [en, zh]
license: apache-2.0
library_name: helicon
pipeline_tag: text-to-image
tags: [stable-diffusion, stickers, icons, pixel-art]
---

# helicon-stickers

A very small diffusion model that draws stickers and icons of 128×128 pixels from short prompts in English or Chinese.
It is embedded in Helicon, so that a first run without a network makes real pictures with a real network.

It is a `StableDiffusionPipeline` in the layout of diffusers, {megabytes:.1f} MB in bfloat16: a CLIP text encoder of its own
(width 256, 4 layers, {text:.2f} M parameters, 48 ids, 2,560 pieces), a `UNet2DConditionModel` over latents of 16×16×4
(widths 128 and 160, {unet:.2f} M; the pooled text scales and shifts every block) and an `AutoencoderTiny` ({vae:.2f} M). It
predicts velocities on the cosine schedule; {steps} steps of DDIM with trailing spacing and a guidance of {guidance:g} are its defaults.

## What it is for

- A thing of those listed below, by its emoji name, and many by shorter words (`umbrella`, `moon`, `phone`):
  `a red apple` · `rocket` · `a snowman sticker` · `猫脸` · `生日蛋糕`
- A style: `classic`, `3D glossy`, `flat`, `simple` · `a dog face, flat style` · `扁平风格的狗脸`
- A background: 16 colours, gradients · `a star on a blue background` · `红苹果，粉色背景`
- Less surely: another colour (`a purple rose`), a size and place (`a tiny house in the top left corner`), two things
  (`a sun and a cloud`), pixel art, stripes, dots and checks behind a thing

## What it cannot do

It knows the {things} things below by the names that Unicode gives them, in English and Chinese; asked for anything else it
draws a coloured shape, or something that it knows, and so it does with some other words for them: `automobile` is a car, `car`
is not. It draws no letters, people, photographs or scenes, counts nothing, and mixes two
things up. In a style that it has not seen a thing in, it may draw it in another. Details as small as eyes
blur: an eighth of the width is all that a latent has. Sizes other than 128×128 are drawn as pieces of pictures. Its prompts have at most 46 pieces. What it draws resembles the sets it learned from.

## What it knows

{names}

## Training

{training}

Data, licences and attributions are in `models/recipes/image/NOTICE.md` of Helicon's source: Noto Emoji (Apache-2.0),
Fluent Emoji (MIT), Twemoji (CC BY 4.0), Unicode CLDR (Unicode-3.0), tiles of Dungeon Crawl Stone Soup (CC0). Pictures
were composed with backgrounds, colours, sizes, places and pairs, and the prompts written from what is in them. One pair
of thing and style in ten, chosen by a hash, was held out: of the things below, {held} pairs were never seen.

## Figures

"{{name}}, {{style}} style" of {held} held-out and {seen} seen pairs, {steps} steps, guidance {guidance:g}, seeds from 1, in bfloat16; drawings
judged by a network trained on the real pictures of the training set (`judge.py`), whose score on real held-out pictures bounds
what can be measured:

| | thing first of {things} | among five | style |
|---|---|---|---|
{rows}

The judge tells styles apart badly where it has not seen the pair, and a thing never seen in a style is often drawn in another
one. The colour along the border is the one asked for, of 16 named ones, in {background} % of {seen} drawings of seen things.

    python3 evaluate.py --out OUT --things focus.txt
"""

STEP = re.compile(r"step (\d+) loss ([\d.]+) .* minutes ([\d.]+)")
ROWS = ("held-out pairs", "seen pairs", "judge on real held-out pictures", "the same through the autoencoder")


def stage(folder, name, batch):
    """What a stage's log says."""
    with open(os.path.join(folder, name + ".log"), encoding="utf-8") as file:
        lines = file.readlines()
    rows = [found.groups() for found in map(STEP.match, lines) if found]
    held = [line.strip() for line in lines if "held out" in line]
    steps, loss, minutes = rows[-1]
    text = f"{int(steps):,} steps of {batch} in {float(minutes):.0f} minutes of both cores, training loss {loss} at the end"
    return text, held[-1]


def last_set(folder):
    """How many pictures the UNet saw last, and in how many of its steps."""
    step, began, pictures = 0, 0, None
    with open(os.path.join(folder, "unet.log"), encoding="utf-8") as file:
        for line in file:
            found = re.search(r"^step (\d+)|latents (\d+)", line)
            if found and found.group(1):
                step = int(found.group(1))
            elif found and found.group(2) != pictures:
                pictures, began = found.group(2), step
    return int(pictures), step - began


def training_text(folder, batch):
    vae, judged = stage(folder, "vae", 16)
    unet, held = stage(folder, "unet", batch)
    pictures, steps = last_set(folder)
    decibels = re.search(r"PSNR ([\d.]+)", judged).group(1)
    losses = re.search(r"loss held out ([\d.]+) seen ([\d.]+)", held)
    return (
        "On two shared CPU cores (Intel Sapphire Rapids, bfloat16 on AMX), Muon for matrices and convolutions and AdamW for the "
        f"rest; averaged weights. Autoencoder: {vae}; {decibels} dB on held-out pictures. Text encoder and UNet together: {unet}; the last {steps:,} of these steps "
        f"were made on {pictures:,} pictures of the things above, after the text encoder had learned to tell their names apart, those before "
        f"on pictures of 1,649 things; velocity loss {losses.group(1)} on held-out and {losses.group(2)} on seen pictures."
    )


def names_text(folder, path):
    """The names of the things of a file, by group."""
    with open(os.path.join(folder, "entries.json"), encoding="utf-8") as file:
        names = {entry["thing"]: entry["name"] for entry in json.load(file)}
    groups = {}
    for thing, group in narrow.read_things(path).items():
        groups.setdefault(group, []).append(names[thing])
    return "\n".join(f"- {group.capitalize()}: {', '.join(found)}" for group, found in groups.items())


def parameters(bundle, name):
    """Millions of parameters of a part, from the size of its bfloat16 weights."""
    return os.path.getsize(os.path.join(bundle, name)) / 2e6


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="the folder of the training run, with the stages' logs")
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--things", required=True, help="file of the things it was trained on")
    parser.add_argument("--figures", required=True, help="what evaluate.py printed")
    parser.add_argument("--batch", type=int, default=128, help="of the stage unet")
    options = parser.parse_args()
    with open(options.figures, encoding="utf-8") as file:
        report = json.load(file)
    rows = "\n".join(f"| {row} | {report[row]['first']} % | {report[row]['in five']} % | {report[row]['style']} % |" for row in ROWS)
    names = ("text_encoder/model", "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model")
    text, unet, vae = (parameters(options.bundle, name + ".safetensors") for name in names)
    card = CARD.format(
        megabytes=2 * (text + unet + vae), text=text, unet=unet, vae=vae, training=training_text(options.out, options.batch),
        held=report["prompts"]["held-out pairs"], seen=report["prompts"]["seen pairs"], things=report["things"],
        names=names_text(options.out, options.things), steps=report["steps"], guidance=report["guidance"], rows=rows, background=report["background colours right"],
    )  # fmt: skip
    with open(os.path.join(options.bundle, "README.md"), "w", encoding="utf-8") as file:
        file.write(card)


if __name__ == "__main__":
    main()
