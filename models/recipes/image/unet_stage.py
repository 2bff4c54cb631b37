"""The stage of train.py in which the text encoder and the UNet learn to predict velocities of latents."""

import functools
import itertools
import json
import os

import torch

import data
import diffusion
import model
import sheet
import train
import vae
import weights

PART = 32  # pictures a worker takes at a time
# What the sheet written while training shows: prompts of the kinds users write, with seed 1.
PROMPTS = [
    "a red apple", "a cat sticker, 3D glossy", "dog, flat style", "a rocket on a blue background", "猫，扁平风格", "一个苹果，蓝色背景",
    "a purple apple on a yellow background", "an elephant, classic", "a sun and a cloud", "smiling face with sunglasses, classic",
    "a tiny house in the bottom right corner", "red automobile, 3D", "pizza, simple", "a blob cat face on pink", "palm tree on a gradient from light blue to cream",
    "a red heart above a star", "a panda, classic", "guitar, flat, white background", "an airplane on light blue", "生日蛋糕，立体风格，粉色背景",
    "a blue bird, flat", "a ghost, black background", "banana, flat", "a birthday cake beside a balloon",
    "umbrella, simple", "key, 3D", "a butterfly", "mushroom, simple", "book, classic", "crown on purple", "fish, 3D", "bicycle, flat",
    "ice cream, 3D", "penguin, flat", "camera, simple", "snowman", "cactus, classic", "bus, flat", "strawberry", "a green frog on orange",
]  # fmt: skip


def scale_of(folder):
    with open(os.path.join(folder, "scale.json"), encoding="utf-8") as file:
        return json.load(file)["scaling_factor"]


def pictures(network, autoencoder, coder, prompts, scale, count=20, guidance=3.0, first=1):
    """uint8 [N, 128, 128, 3], one for each prompt, its noise drawn with the seed first, first+1, …"""
    noise = torch.stack([torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(first + i)) for i in range(len(prompts))])
    ids = torch.tensor([coder.pad(text) for text in prompts])
    latents = diffusion.ddim(network, ids, torch.tensor([coder.pad("")]), noise, count, guidance)
    with torch.no_grad():
        got = torch.cat([autoencoder.decode(part / scale) for part in latents.split(8)]).clamp(-1, 1)
    return ((got + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def train_unet(options):
    network, autoencoder = model.Stickers(), train.load_vae(options)
    run = train.Run(options, network, lambda name: "_embedding.weight" in name or name.endswith(("conv_in.weight", "conv_out.weight")))
    batch, scale = options.batch or 128, scale_of(options.out)
    stream = data.Latents(options.out, batch, options.things, options.drop, options.focus)
    stream.book.other_words = options.other_words
    count = {part: sum(p.numel() for n, p in run.parameters.items() if n.startswith(part)) for part in ("unet", "text_encoder")}
    print("parameters", count, "latents", stream.total, "scale", scale, flush=True)
    held = data.book_of(options.out, options.things, held=True)
    specs = (held.spec(3, number) for number in range(100000))
    if options.focus:
        chosen = data.narrow.read_things(options.focus)
        specs = (spec for spec in specs if data.narrow.within(spec, chosen))
    specs = list(itertools.islice(specs, 128))
    with torch.no_grad():
        shown = data.normal(data.numpy.stack([held.render(spec) for spec in specs]).transpose(0, 3, 1, 2))
        latents = torch.cat([autoencoder.encode(part) for part in shown.split(16)]) * scale
    held_ids = torch.tensor([stream.coder.pad(held.prompt(spec, number)) for number, spec in enumerate(specs)])

    def velocity_loss(clean, ids, generator, noisy=1.0):
        noise = torch.randn(clean.shape, generator=generator)
        # One step from each of B equal parts of the schedule, so that the loss is steadier.
        places = (torch.rand(1, generator=generator) + torch.arange(len(clean)) / len(clean)) % 1
        places = places ** (1 / noisy)
        steps = (places[torch.randperm(len(clean), generator=generator)] * diffusion.STEPS).long().clamp_max(diffusion.STEPS - 1)
        x, want = diffusion.noisy(clean, noise, steps)
        return (network(x, steps, ids) - want).square().mean()

    def judge():
        loss = sum(velocity_loss(latents, held_ids, torch.Generator().manual_seed(i)).item() for i in range(3)) / 3
        seen, ids = stream.get(0)
        again = sum(velocity_loss(seen * scale, ids, torch.Generator().manual_seed(i)).item() for i in range(3)) / 3
        print(f"loss held out {loss:.4f} seen {again:.4f} epochs {run.taken * batch / stream.total:.2f}", flush=True)
        sheet.save(os.path.join(options.out, "unet.png"), pictures(network, autoencoder, stream.coder, PROMPTS, scale), PROMPTS)

    def step(number):
        clean, ids = stream.get(number)
        parts = zip((clean * scale).split(PART), ids.split(PART))
        return run.update([
            functools.partial(velocity_loss, *part, torch.Generator().manual_seed(number * 64 + place), options.noisy)
            for place, part in enumerate(parts)
        ])  # fmt: skip

    run.train(step, judge, batch)
