"""Trains helicon-upscale by the differences of the pixels and, at two sizes, of the gradients. Resumable."""

import argparse
import concurrent.futures
import os
import time

import torch
import torch.nn.functional as F

import model
import pictures
import weights
from optimizer import Optimizer

WARMUP = 50


def edges(x):
    return x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]


def difference(got, want):
    """Mean absolute difference, but smooth near none (Charbonnier): most of a drawing is flat and right from the start, and
    a kink there holds the network at the plain enlargement for good."""
    return ((got - want).square() + 0.02**2).sqrt().mean() - 0.02


def loss(got, want):
    total = 3 * (got - want).square().mean() + difference(got, want)
    for _ in range(2):
        for a, b in zip(edges(got), edges(want)):
            total = total + 0.3 * difference(a, b)
        got, want = F.avg_pool2d(got, 2), F.avg_pool2d(want, 2)
    return total


def psnr(got, want):
    error = (got.clamp(0, 1) - want).square().mean((1, 2, 3))
    return 10 * torch.log10(1 / error.clamp_min(1e-9))


class Run:
    def __init__(self, options):
        self.options, self.network = options, model.SRVGGNetCompact()
        self.worker = concurrent.futures.ThreadPoolExecutor(1)
        ends = ("body.0.weight", f"body.{len(self.network.body) - 1}.weight")
        self.optimizer = Optimizer(self.network.named_parameters(), lambda name: name in ends)
        self.average = {name: value.detach().clone() for name, value in self.network.named_parameters()}
        self.steps, self.seconds = 0, 0.0
        self.path = os.path.join(options.out, "upscale.pt")
        if options.resume:
            saved = torch.load(self.path)
            self.network.load_state_dict(saved["network"])
            self.optimizer.load(saved["optimizer"])
            self.average, self.steps, self.seconds = saved["average"], saved["steps"], saved["seconds"]
        self.first_seconds, self.first_steps = self.seconds, self.steps

    def progress(self):
        return (self.seconds - self.first_seconds) / 60 / self.options.minutes

    def save(self):
        saved = {"network": self.network.state_dict(), "average": self.average, "optimizer": self.optimizer.state(),
                 "steps": self.steps, "seconds": self.seconds}  # fmt: skip
        torch.save(saved, self.path + ".part")
        os.replace(self.path + ".part", self.path)
        weights.write(os.path.join(self.options.out, "upscale-average.safetensors"), self.average)

    @torch.no_grad()
    def judge(self, large, small):
        kept = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        got = self.network(small)
        self.network.load_state_dict(kept)
        plain = F.interpolate(small, scale_factor=4, mode="bicubic", align_corners=False)
        print(f"held out: PSNR {psnr(got, large).mean():.2f} dB, loss {loss(got, large):.4f}; bicubic {psnr(plain, large).mean():.2f} dB, "
              f"loss {loss(plain, large):.4f}", flush=True)  # fmt: skip

    def step(self, large, small):
        start, left = time.process_time(), (1 - self.progress()) / self.options.decay
        share = min(1.0, (self.steps - self.first_steps + 1) / WARMUP, max(0.02, left))
        value = loss(self.network(small), large)
        self.network.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step(self.worker, share * self.options.matrix_rate, share * self.options.adam_rate)
        self.steps += 1
        keep = min(0.999, self.steps / (self.steps + 10))
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                self.average[name].lerp_(parameter, 1 - keep)
        self.seconds += time.process_time() - start
        return value.item()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="the folder that prepare.py of the stickers wrote")
    parser.add_argument("--out", required=True)
    parser.add_argument("--minutes", type=float, default=30, help="of work of one core")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--matrix-rate", type=float, default=3e-3)
    parser.add_argument("--adam-rate", type=float, default=1e-3)
    parser.add_argument("--decay", type=float, default=0.5, help="part of the budget over which the rate falls")
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.makedirs(options.out, exist_ok=True)
    run = Run(options)
    print("parameters", sum(p.numel() for p in run.network.parameters()), flush=True)
    with pictures.Pairs(options.data, 98, 64, held=True, ahead=1) as held:
        judged = held.get()
    losses, saved = [], time.time()
    with pictures.Pairs(options.data, 5, options.batch, first=run.steps * options.batch) as pairs:
        while run.progress() < 1:
            losses.append(run.step(*pairs.get()))
            if run.steps % 50 == 0:
                print(f"step {run.steps} loss {sum(losses) / len(losses):.4f} minutes {run.seconds / 60:.1f}", flush=True)
                losses = []
            if run.steps % 500 == 0:
                run.judge(*judged)
            if time.time() - saved > 120:
                run.save()
                saved = time.time()
    run.judge(*judged)
    run.save()


if __name__ == "__main__":
    main()
