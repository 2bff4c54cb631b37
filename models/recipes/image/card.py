"""Writes the model card (the bundle's README.md) from the figures of evaluate.py and the logs of the stages."""

import argparse
import json
import os
import re

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
(widths 128 and 160, {unet:.2f} M) and an `AutoencoderTiny` ({vae:.2f} M). It predicts velocities on the cosine schedule;
{steps} steps of DDIM with trailing spacing and a guidance of {guidance:g} are what it is measured with.

## What it is for

- A thing by its emoji name or keywords: `a red apple` · `a cat sticker` · `rocket` · `猫` · `生日蛋糕`
- A style: `classic`, `blob`, `3D glossy`, `flat`, `simple`, `pixel art` · `a dog, flat style` · `扁平风格的狗`
- A background: 16 colours, gradients, stripes, dots, checks, a few textures · `a star on a blue background` · `苹果，粉色背景`
- A colour: `a purple apple` · a size and place: `a tiny house in the top left corner` · two things: `a sun and a cloud`

## What it cannot do

It knows 1,649 things, by the names that Unicode gives them, and the tiles of one game; other words mean little to it. It
draws no letters, photographs, scenes, or people in particular poses, counts nothing, and of two things it often draws one, or
mixes them. Details as small as eyes and fingers blur: an eighth of the width is all that a latent has. Sizes other than
128×128 are drawn as pieces of pictures. Its prompts have at most 46 pieces. What it draws resembles the sets it learned from.

## Training

{training}

Data, licences and attributions are in `models/recipes/image/NOTICE.md` of Helicon's source: Noto Emoji (Apache-2.0),
Fluent Emoji (MIT), Twemoji (CC BY 4.0), Unicode CLDR (Unicode-3.0), tiles of Dungeon Crawl Stone Soup (CC0). Pictures
were composed with backgrounds, colours, sizes, places and pairs, and the prompts written from what is in them. One pair
of thing and style in ten, chosen by a hash, was held out.

## Figures

{count} prompts of each kind, {steps} steps, guidance {guidance:g}, seeds from 1, in bfloat16; drawings judged by a network trained on the real
pictures of the training set (`judge.py`), whose score on real held-out pictures bounds what can be measured:

| | thing first of 1,649 | among five | style |
|---|---|---|---|
{rows}

The colour along the border is the one asked for, of 16 named ones, in {background} % of {count} drawings of seen things.

    python3 evaluate.py --out OUT
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


def training_text(folder, batch):
    vae, judged = stage(folder, "vae", 16)
    unet, held = stage(folder, "unet", batch)
    decibels = re.search(r"PSNR ([\d.]+)", judged).group(1)
    losses = re.search(r"loss held out ([\d.]+) seen ([\d.]+) epochs ([\d.]+)", held)
    return (
        "On two shared CPU cores (Intel Sapphire Rapids, bfloat16 on AMX), Muon for matrices and convolutions and AdamW for the "
        f"rest; averaged weights. Autoencoder: {vae}; {decibels} dB on held-out pictures. Text encoder and UNet together: {unet}, "
        f"{losses.group(3)} passes over the latents; velocity loss {losses.group(1)} on held-out and {losses.group(2)} on seen pictures."
    )


def parameters(bundle, name):
    """Millions of parameters of a part, from the size of its bfloat16 weights."""
    return os.path.getsize(os.path.join(bundle, name)) / 2e6


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="the folder of the training run, with the stages' logs")
    parser.add_argument("--bundle", required=True)
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
        count=report["prompts"], steps=report["steps"], guidance=report["guidance"], rows=rows, background=report["background colours right"],
    )  # fmt: skip
    with open(os.path.join(options.bundle, "README.md"), "w", encoding="utf-8") as file:
        file.write(card)


if __name__ == "__main__":
    main()
