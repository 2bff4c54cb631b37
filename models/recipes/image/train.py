"""Trains helicon-stickers in stages, each resumable:

  vae      the autoencoder, on pictures composed on the fly
  latents  not training: encodes composed pictures once, since they cost more than the UNet's step
  words    the text encoder alone: the pooled text must tell things apart (--steps 500)
  unet     text encoder and UNet together, on the latents
  aliases  the text encoder alone, afterwards: other words for the same things (--steps 200)
  few      a UNet that draws in four steps what the guided one draws in twenty
  decoder  the autoencoder's decoder alone, for sharper pictures of the same latents

The budget of a stage is --steps, or --minutes of work of the workers: time in which others had the machine, or in which
the run was stopped, does not count. Weights of all networks learn by Muon and AdamW; the rate warms up, stays, and falls
linearly over the last part of the budget (--decay 0: stays, for a run that will be resumed).

Two workers, each on one core, take small parts of a step's batch as they become free: unlike threads inside every
operation, they need no cores of equal speed, which matters when others use the machine too.
"""

import argparse
import concurrent.futures
import functools
import json
import os
import time

os.environ["OMP_NUM_THREADS"] = "1"

import numpy
import torch
import torch.nn.functional as F

import data
import narrow
import sheet
import vae
import weights
from optimizer import Optimizer

WARMUP = 50


class Run:
    """What the stages share: network, optimizer, average, clock, checkpoints."""

    def __init__(self, options, network, adam):
        self.options, self.network = options, network
        self.parameters = dict(network.named_parameters())
        self.optimizer = Optimizer(self.parameters.items(), adam)
        self.average = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.workers = concurrent.futures.ThreadPoolExecutor(options.workers)
        self.taken, self.seconds = 0, 0.0
        self.path = os.path.join(options.out, options.stage + ".pt")
        if options.init_from:
            network.load_state_dict(weights.bundle(options.init_from))
            self.average = {name: value.detach().clone() for name, value in self.parameters.items()}
        if options.resume:
            saved = torch.load(self.path)
            network.load_state_dict(saved["network"], strict=False)
            self.average.update(saved["average"])
            if "optimizer" in saved:
                self.optimizer.load(saved["optimizer"])
            self.taken, self.seconds = saved["steps"], saved["seconds"]
        self.first_taken, self.first_seconds, self.began = self.taken, self.seconds, time.time()

    def save(self):
        saved = {"network": self.network.state_dict(), "average": self.average, "optimizer": self.optimizer.state(),
                 "steps": self.taken, "seconds": self.seconds}  # fmt: skip
        torch.save(saved, self.path + ".part")
        os.replace(self.path + ".part", self.path)
        weights.write(os.path.join(self.options.out, self.options.stage + "-average.safetensors"), self.average)

    def progress(self):
        """The share of this sitting's budget that is spent."""
        options = self.options
        if options.until:
            return (time.time() - self.began) / (options.until - self.began)
        if options.steps:
            return (self.taken - self.first_taken) / options.steps
        return (self.seconds - self.first_seconds) / 60 / options.minutes

    def rate(self):
        left = (1 - self.progress()) / self.options.decay if self.options.decay else 1
        return min(1.0, (self.taken - self.first_taken + 1) / WARMUP, max(0.02, left))

    def gradients(self, part):
        loss = part()
        return loss.item(), torch.autograd.grad(loss, list(self.parameters.values()))

    def update(self, parts):
        """One step; parts are functions that give the loss of a part of the batch. Returns the mean loss and the gradient's norm."""
        tasks, total = [self.workers.submit(self.gradients, part) for part in parts], 0.0
        for task in tasks:  # in order, so that a run is repeatable
            loss, found = task.result()
            total += loss / len(parts)
            for parameter, gradient in zip(self.parameters.values(), found):
                if parameter.grad is None:
                    parameter.grad = gradient.div_(len(parts))
                else:
                    parameter.grad.add_(gradient, alpha=1 / len(parts))
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        if torch.isfinite(norm):
            self.optimizer.step(self.workers, self.rate() * self.options.matrix_rate, self.rate() * self.options.adam_rate)
        self.network.zero_grad(set_to_none=True)
        self.taken += 1
        keep = min(self.options.average, self.taken / (self.taken + 10))
        with torch.no_grad():
            for name, value in self.parameters.items():
                self.average[name].lerp_(value, 1 - keep)
        return total, norm.item()

    def averaged(self, judge):
        """judge() with the averaged weights in place."""
        kept = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.network.load_state_dict(self.average)
        try:
            with torch.no_grad():
                return judge()
        finally:
            self.network.load_state_dict(kept)

    def train(self, step, judge, batch):
        saved = began = time.time()
        losses, counted = [], 0
        while self.progress() < 1:
            start = time.process_time()
            loss, norm = step(self.taken)
            losses.append(loss)
            counted += batch
            self.seconds += (time.process_time() - start) / self.options.workers
            if self.taken % 20 == 0:
                speed = counted / (time.time() - began)
                print(f"step {self.taken} loss {sum(losses) / len(losses):.4f} norm {norm:.2f} rate {self.rate():.3f} "
                      f"{speed:.1f} images/s minutes {self.seconds / 60:.1f}", flush=True)  # fmt: skip
                losses, counted, began = [], 0, time.time()
            if self.taken % self.options.judge == 0:
                self.averaged(judge)
                began, counted = time.time(), 0
            if time.time() - saved > 200:
                self.save()
                saved = time.time()
        self.averaged(judge)
        self.save()


def train_vae(options):
    network = vae.AutoencoderTiny()
    run = Run(options, network, lambda name: name in ("encoder.layers.0.weight", "decoder.layers.0.weight") or "bias" in name)
    count = {part: sum(p.numel() for n, p in run.parameters.items() if n.startswith(part)) for part in ("encoder", "decoder")}
    print("parameters", count, flush=True)
    with data.Pictures(options.out, 99, 64, held=True, ahead=1) as pictures:
        held = pictures.get()
    batch = options.batch or 16

    def judge():
        latents = torch.cat([network.encode(part) for part in held.split(16)])
        got = torch.cat([network.decode(part) for part in latents.split(16)])
        figures = vae.psnr(got, held)
        print(f"held out: PSNR {figures.mean():.2f} dB (worst {figures.min():.2f}), loss {vae.loss(got, held):.4f}, latents mean "
              f"{[round(v, 2) for v in latents.mean((0, 2, 3)).tolist()]} std {[round(v, 2) for v in latents.std((0, 2, 3)).tolist()]} "
              f"largest {latents.abs().max():.2f}", flush=True)  # fmt: skip
        pairs = torch.stack((held, got.clamp(-1, 1)), 1).flatten(0, 1)[:64]
        sheet.save(os.path.join(options.out, "vae.png"), ((pairs + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy())

    with data.Pictures(options.out, options.seed, batch, first=run.taken * batch, processes=1) as pictures:

        def part_loss(want, number, place):
            draw = torch.Generator().manual_seed(number * 64 + place)
            latents = network.encode(want)
            # Latents of mean 0 and deviation 1 in every channel, smooth enough to survive noise and halving.
            spread = latents.std((0, 2, 3)).sub(1).square().mean() + latents.mean((0, 2, 3)).square().mean()
            loud = torch.relu(latents.abs() - 3).square().mean()
            strength = torch.rand(len(want), 1, 1, 1, generator=draw) * 0.15
            noisy = latents + torch.randn(latents.shape, generator=draw) * strength
            loss = vae.loss(network.decode(noisy), want) + 0.2 * spread + 0.05 * loud
            if (number + place) % 3 == 0:
                half = network.decode(F.avg_pool2d(latents, 2))
                loss = loss + 0.2 * vae.loss(half, F.avg_pool2d(want, 2))
            return loss

        def step(number):
            parts = pictures.get().split(4)
            return run.update([functools.partial(part_loss, part, number, place) for place, part in enumerate(parts)])

        run.train(step, judge, batch)


def load_vae(options):
    """The averaged autoencoder, its decoder from the stage of that name if there was one."""
    network = vae.AutoencoderTiny()
    network.load_state_dict(weights.read(os.path.join(options.out, "vae-average.safetensors")))
    decoder = os.path.join(options.out, "decoder-average.safetensors")
    if os.path.exists(decoder):
        network.load_state_dict(weights.read(decoder), strict=False)
    return network.requires_grad_(False)


@torch.no_grad()
def make_latents(options):
    network, folder = load_vae(options), data.folder_of(options.out, options.things)
    os.makedirs(folder, exist_ok=True)
    for number in range(options.shards):
        path = os.path.join(folder, f"shard-{number:03}.npy")
        if os.path.exists(path):
            continue
        start, size = time.time(), data.Latents.SIZE
        with data.Pictures(options.out, data.Latents.SEED, 64, first=number * size, processes=2, things=options.things) as pictures:
            latents = torch.cat([network.encode(pictures.get()) for _ in range(size // 64)])
        with open(path + ".part", "wb") as file:
            numpy.save(file, latents.numpy().astype(numpy.float16))
        os.replace(path + ".part", path)
        scale = os.path.join(options.out, "scale.json")
        if not os.path.exists(scale):
            with open(scale, "w", encoding="utf-8") as file:
                json.dump({"scaling_factor": round(1 / latents.std().item(), 4)}, file)
        print(f"shard {number} {size / (time.time() - start):.0f} images/s std {latents.std():.3f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="the folder prepare.py wrote; checkpoints go there as well")
    parser.add_argument("--stage", choices=("vae", "latents", "unet", "words", "aliases", "few", "decoder"), required=True)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--until", type=float, default=0, help="end by the clock instead, in seconds since 1970 (date +%%s -d 12:00)")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shards", type=int, default=32, help="shards of 4,096 latents to make")
    parser.add_argument("--matrix-rate", type=float, default=2e-3)
    parser.add_argument("--adam-rate", type=float, default=1e-3)
    parser.add_argument("--average", type=float, default=0.999)
    parser.add_argument("--decay", type=float, default=0.3, help="part of the budget over which the rate falls")
    parser.add_argument("--judge", type=int, default=500, help="steps between figures on held-out pictures")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--things", help="file of the things that latents are made of and the UNet learns; all without")
    parser.add_argument("--focus", help="file of some of these things: the UNet sees only pictures of them, and no blobs")
    parser.add_argument("--other-words", type=float, default=narrow.OTHER_WORDS, help="share of prompts with words of aliases.txt")
    parser.add_argument("--drop", type=float, default=0.1, help="share of empty prompts")
    parser.add_argument("--noisy", type=float, default=1.0, help="places in the schedule are the 1/NOISY-th power of uniform ones")
    parser.add_argument("--init-from", help="bundle to start from: its text encoder and UNet")
    parser.add_argument("--resume", action="store_true", help="go on from the stage's checkpoint in OUT")
    options = parser.parse_args()
    if options.stage == "vae":
        train_vae(options)
    elif options.stage == "latents":
        make_latents(options)
    elif options.stage == "unet":
        import unet_stage

        unet_stage.train_unet(options)
    elif options.stage == "words":
        import words_stage

        words_stage.train_words(options)
    elif options.stage == "aliases":
        import alias_stage

        alias_stage.train_aliases(options)
    elif options.stage == "few":
        import few_stage

        few_stage.train_few(options)
    else:
        import decoder_stage

        decoder_stage.train_decoder(options)


if __name__ == "__main__":
    main()
