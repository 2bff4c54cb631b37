"""Writes the bundle: config.json and model.safetensors in bfloat16, from the averaged weights of a run, with the card."""

import argparse
import json
import os

import model
import pictures  # finds the stickers' modules
import weights

CARD = """---
license: apache-2.0
library_name: helicon
pipeline_tag: image-to-image
tags: [super-resolution, srvgg]
---

# helicon-upscale

Enlarges flat drawings, stickers, icons and pixel art four times, with clean edges. It is embedded in Helicon, so that
pictures can be enlarged without a download.

SRVGGNetCompact (Wang et al., Real-ESRGAN, 2021): {convolutions} convolutions of {width} channels with PReLU between them, a pixel
shuffle, and the enlarged picture itself added: {parameters:.2f} M parameters in bfloat16. `config.json` has the numbers under the
names of its constructor in BasicSR; the tensors are named as in its public checkpoints.

## What it cannot do

It was never shown a photograph, and how it treats them was not measured. It sees {field} pixels around a point, and was not
taught to invent: what is lost in the small picture, such as the features of a face of ten pixels, stays lost, and fine
patterns blur. Alpha is not its business.

## Training

{steps:,} steps of {batch} pairs, {minutes:.0f} minutes of one CPU core (Intel Sapphire Rapids, bfloat16 on AMX): pictures of 128×128
composed from the stickers and tiles of helicon-stickers, and drawings of curves and polygons, reduced four times by one of
five filters, some blurred, with noise or compressed as JPEG. Differences of pixels and of gradients; no adversary.
Data, licences and attributions: `models/recipes/image/NOTICE.md` of Helicon's source (Noto Emoji and Blobmoji,
Apache-2.0; Fluent Emoji, MIT; Twemoji, CC BY 4.0; tiles of Dungeon Crawl Stone Soup, CC0). The recipe is in
`models/recipes/upscale`.

## Figures

{count} composed pictures of held-out stickers and tiles, 32×32 → 128×128; PSNR in dB / SSIM:

| | bicubic | Lanczos | helicon-upscale |
|---|---|---|---|
{rows}
"""


def table(report):
    rows = []
    for name, ways in report.items():
        if name != "pictures":
            cells = " | ".join(f"{ways[way]['PSNR']:.2f} / {ways[way]['SSIM']:.3f}" for way in ("bicubic", "Lanczos", "helicon-upscale"))
            rows.append(f"| {name} | {cells} |")
    return "\n".join(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="the folder of the training run")
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--figures", required=True, help="what evaluate.py printed")
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    os.makedirs(options.bundle, exist_ok=True)
    tensors = weights.read(os.path.join(options.out, "upscale-average.safetensors"))
    saved = pictures.torch.load(os.path.join(options.out, "upscale.pt"))
    weights.write(os.path.join(options.bundle, "model.safetensors"), tensors)
    with open(os.path.join(options.bundle, "config.json"), "w", encoding="utf-8") as file:
        json.dump({**model.CONFIG, "torch_dtype": "bfloat16"}, file, indent=2)
        file.write("\n")
    with open(options.figures, encoding="utf-8") as file:
        report = json.load(file)
    count = model.CONFIG["num_conv"] + 2
    card = CARD.format(
        convolutions=count, width=model.CONFIG["num_feat"], parameters=sum(t.numel() for t in tensors.values()) / 1e6,
        field=count, steps=saved["steps"], batch=options.batch, minutes=saved["seconds"] / 60, count=report["pictures"],
        rows=table(report),
    )  # fmt: skip
    with open(os.path.join(options.bundle, "README.md"), "w", encoding="utf-8") as file:
        file.write(card)


if __name__ == "__main__":
    main()
