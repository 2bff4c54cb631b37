"""The stage of train.py in which a student learns to draw in four steps without guidance (after Salimans & Ho 2022,
Meng et al. 2023): one of its steps is to arrive where several steps of the guided teacher arrive."""

import copy
import functools
import os

import torch
from torch import nn

import data
import diffusion
import model
import sheet
import train
import unet_stage
import weights

COUNT, PARTS, GUIDANCE = 4, 5, 3.0  # steps of the student, steps of the teacher within each, guidance of the teacher
PART = 16  # pictures a worker takes at a time


def corners():
    """Signal and noise at the student's steps and after the last: [COUNT + 1, 2], and the steps."""
    steps = torch.arange(diffusion.STEPS, 0, -diffusion.STEPS / COUNT).round().long() - 1
    signal = torch.cat((diffusion.ALPHAS[steps], torch.ones(1)))
    return torch.stack((signal.sqrt(), (1 - signal).sqrt()), 1), steps


def towards(x, v, now, after):
    """x moved by the velocity v from one (signal, noise) to another, each [B, 2]: a step of DDIM."""
    (a, b), (c, d) = (pair.t()[:, :, None, None, None] for pair in (now, after))
    return c * (a * x - b * v) + d * (a * v + b * x)


def velocity(x, arrived, now, after):
    """The velocity with which towards gives arrived."""
    (a, b), (c, d) = (pair.t()[:, :, None, None, None] for pair in (now, after))
    return (arrived - (c * a + d * b) * x) / (d * a - c * b)


@torch.no_grad()
def guided(teacher, x, context, places, blank):
    """Where the teacher arrives from x at the student's steps places [B], one step of the student later."""
    spacing = diffusion.STEPS // COUNT // PARTS
    steps = corners()[1][places]
    both = torch.cat((blank.expand_as(context), context))
    for part in range(PARTS):
        now = steps - part * spacing
        then = now - spacing
        signal = [torch.where(at >= 0, diffusion.ALPHAS[at.clamp_min(0)], torch.ones(())) for at in (now, then)]
        pairs = [torch.stack((s.sqrt(), (1 - s).sqrt()), 1) for s in signal]
        without, told = teacher(torch.cat((x, x)), torch.cat((now, now)), both).chunk(2)
        x = towards(x, without + GUIDANCE * (told - without), *pairs)
    return x


def train_few(options):
    whole = model.Stickers()
    whole.load_state_dict(weights.read(os.path.join(options.out, "unet-average.safetensors")))
    whole.requires_grad_(False)
    autoencoder, student = train.load_vae(options), nn.ModuleDict({"unet": copy.deepcopy(whole.unet).requires_grad_(True)})
    run = train.Run(options, student, lambda name: name.endswith(("conv_in.weight", "conv_out.weight")))
    batch, scale = options.batch or 64, unet_stage.scale_of(options.out)
    stream = data.Latents(options.out, batch, options.things, options.drop, options.focus)
    stream.book.other_words = options.other_words
    blank = torch.tensor([stream.coder.pad("")])
    ends, steps = corners()

    def rolled(noise, context, place):
        """Latents at the student's step place, by its own steps from noise."""
        x = noise
        for index in range(place):
            many = torch.full((len(x),), index)
            x = towards(x, student["unet"](x, steps[many], context), ends[many], ends[many + 1])
        return x

    def part_loss(clean, ids, number, index):
        draw = torch.Generator().manual_seed(number * 64 + index)
        noise = torch.randn(clean.shape, generator=draw)
        place = int(torch.randint(COUNT, (1,), generator=draw))
        places = torch.full((len(clean),), place)
        with torch.no_grad():
            context = whole.text_encoder(ids)
            if torch.rand(1, generator=draw) < 0.5:
                x = rolled(noise, context, place)
            else:
                x = diffusion.noisy(clean, noise, steps[places])[0]
            arrived = guided(whole.unet, x, context, places, whole.text_encoder(blank))
            want = velocity(x, arrived, ends[places], ends[places + 1])
        return (student["unet"](x, steps[places], context) - want).square().mean()

    def judge():
        drawer = copy.copy(whole)
        drawer._modules = {**whole._modules, "unet": student["unet"]}
        drawn = unet_stage.pictures(drawer, autoencoder, stream.coder, unet_stage.PROMPTS, scale, COUNT, 1.0)
        sheet.save(os.path.join(options.out, "few.png"), drawn, unet_stage.PROMPTS)

    def step(number):
        clean, ids = stream.get(number)
        parts = zip((clean * scale).split(PART), ids.split(PART))
        return run.update([functools.partial(part_loss, *part, number, index) for index, part in enumerate(parts)])

    run.train(step, judge, batch)
