"""Compares a run's averaged weights with bicubic and Lanczos enlargement on held-out pictures, and draws some side by side."""

import argparse
import json
import os

import numpy
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter

import model
import pictures
import sheet
import weights
from train import psnr

COUNT = 256
WAYS = {"bicubic": Image.BICUBIC, "Lanczos": Image.LANCZOS}


def ssim(a, b):
    """Structural similarity (Wang et al. 2004) of each image [B, 3, H, W] in 0…1, with a Gaussian window of 11."""
    line = torch.exp(-(torch.arange(11) - 5.0).square() / (2 * 1.5**2))
    line = line / line.sum()
    window = (line[:, None] * line[None, :]).expand(3, 1, 11, 11).contiguous()

    def mean(x):
        return F.conv2d(x, window, groups=3)

    ma, mb = mean(a), mean(b)
    va, vb, both = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    value = (2 * ma * mb + 0.01**2) * (2 * both + 0.03**2) / ((ma * ma + mb * mb + 0.01**2) * (va + vb + 0.03**2))
    return value.mean((1, 2, 3))


def reductions(large):
    """Small pictures of PIL images: reduced alone, and blurred before."""
    small = (pictures.SIDE // pictures.SCALE,) * 2
    yield "bicubic reduction", [picture.resize(small, Image.BICUBIC) for picture in large]
    yield "area reduction", [picture.resize(small, Image.BOX) for picture in large]
    yield "blur, then reduction", [picture.filter(ImageFilter.GaussianBlur(1.2)).resize(small, Image.BICUBIC) for picture in large]


def stack(images):
    return pictures.tensor(numpy.stack([numpy.asarray(image) for image in images]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="the folder that prepare.py of the stickers wrote")
    parser.add_argument("--out", required=True, help="the folder of the training run")
    parser.add_argument("--sheet", help="where to write the comparison: original, small, Lanczos, network")
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = model.SRVGGNetCompact()
    network.load_state_dict(weights.read(os.path.join(options.out, "upscale-average.safetensors")))
    pictures.open_book(options.data, True)
    large = [Image.fromarray(pictures.BOOK.render(pictures.BOOK.spec(97, number))) for number in range(COUNT)]
    want, report, shown = stack(large), {"pictures": COUNT}, []
    for name, small in reductions(large):
        with torch.no_grad():
            got = torch.cat([network(part) for part in stack(small).split(32)]).clamp(0, 1)
        enlarged = {way: stack([image.resize(large[0].size, filter) for image in small]) for way, filter in WAYS.items()}
        enlarged["helicon-upscale"] = got
        report[name] = {
            way: {"PSNR": round(psnr(images, want).mean().item(), 2), "SSIM": round(ssim(images, want).mean().item(), 4)}
            for way, images in enlarged.items()
        }
        if not shown:
            for index in range(16):
                rows = want, stack([small[index].resize(large[0].size, Image.NEAREST)])[0], enlarged["Lanczos"], got
                shown += [(row[index] if row.dim() == 4 else row).mul(255).round().byte().permute(1, 2, 0).numpy() for row in rows]
    if options.sheet:
        sheet.save(options.sheet, shown)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
