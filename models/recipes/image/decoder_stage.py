"""The stage of train.py in which the decoder alone learns on, with an adversary that tells drawings from blurred ones: the
latents keep their meaning, so the UNet stays as it is."""

import functools
import os

import torch
from torch import nn
import torch.nn.functional as F

import data
import sheet
import train
import vae
import weights
from vae import Conv


class Adversary(nn.Module):
    """Says of each place of a picture whether it looks drawn (Isola et al. 2017): fields of 38 pixels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        widths = (3, 32, 64, 96, 128)
        pairs = zip(widths, widths[1:], (2, 2, 2, 1))
        self.layers = nn.ModuleList(Conv(inputs, outputs, 4 if stride == 2 else 3, stride, 1) for inputs, outputs, stride in pairs)
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in widths[2:])
        self.last = Conv(widths[-1], 1, 3, padding=1)

    def forward(self, pictures):
        x = F.leaky_relu(self.layers[0](pictures.to(torch.bfloat16, memory_format=torch.channels_last)), 0.2)
        for layer, norm in zip(self.layers[1:], self.norms):
            x = F.leaky_relu(norm(layer(x).float()), 0.2).to(torch.bfloat16)
        return self.last(x).float()


def train_decoder(options):
    whole = vae.AutoencoderTiny()
    whole.load_state_dict(weights.read(os.path.join(options.out, "vae-average.safetensors")))
    whole.encoder.requires_grad_(False)
    part = nn.ModuleDict({"decoder": whole.decoder})
    run = train.Run(options, part, lambda name: name == "decoder.layers.0.weight" or "bias" in name)
    adversary = Adversary()
    against = torch.optim.Adam(adversary.parameters(), 3e-4, (0.5, 0.9))
    if options.resume:
        saved = torch.load(run.path + ".adversary")
        adversary.load_state_dict(saved["network"])
        against.load_state_dict(saved["optimizer"])
    with data.Pictures(options.out, 99, 64, held=True, ahead=1) as pictures:
        held = pictures.get()
    batch = options.batch or 16

    def judge():
        got = torch.cat([whole.decode(whole.encode(some)) for some in held.split(16)]).clamp(-1, 1)
        print(f"held out: PSNR {vae.psnr(got, held).mean():.2f} dB, loss {vae.loss(got, held):.4f}", flush=True)
        pairs = torch.stack((held, got), 1).flatten(0, 1)[:64]
        sheet.save(os.path.join(options.out, "decoder.png"), ((pairs + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())
        torch.save({"network": adversary.state_dict(), "optimizer": against.state_dict()}, run.path + ".adversary")

    def part_loss(want, number, place, weight):
        draw = torch.Generator().manual_seed(number * 64 + place)
        with torch.no_grad():
            latents = whole.encode(want)
        latents = latents + torch.randn(latents.shape, generator=draw) * torch.rand(len(want), 1, 1, 1, generator=draw) * 0.1
        got = whole.decode(latents)
        return vae.loss(got, want) - weight * adversary(got).mean()

    def step(number):
        want = pictures.get()
        with torch.no_grad():
            got = whole.decode(whole.encode(want))
        loss = F.relu(1 - adversary(want)).mean() + F.relu(1 + adversary(got)).mean()
        against.zero_grad(set_to_none=True)
        loss.backward()
        against.step()
        weight = 0.03 * min(1.0, run.taken / 300)  # first the adversary learns
        return run.update([functools.partial(part_loss, some, number, place, weight) for place, some in enumerate(want.split(4))])

    with data.Pictures(options.out, options.seed + 1, batch, first=run.taken * batch) as pictures:
        run.train(step, judge, batch)
