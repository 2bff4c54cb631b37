"""Trains helicon-text.

Matrices of the layers learn by Muon (Jordan 2024: momentum, orthogonalised by
five Newton-Schulz steps, scaled to AdamW's step size as in Liu et al. 2025),
embeddings and norms by AdamW. The learning rate warms up, stays, and falls
linearly over the last part of the budget; an average of the weights is kept
for exports on the way. The budget is --steps, or --minutes of wall time.

Two workers, each on one core, take small parts of a step's rows as they become
free: unlike threads inside every operation, they need no cores of equal speed,
which matters when others use the machine too (run with OMP_NUM_THREADS=1).
"""

import argparse
import concurrent.futures
import math
import os
import time

import torch

import data
import model
import tokenizer
import weights

WARMUP = 100  # steps
AVERAGE_EVERY, AVERAGE = 4, 0.99
WEIGHT_DECAY = 0.1
PART = 2  # rows a worker takes at a time


def orthogonalise(batch):
    """The nearest semi-orthogonal matrices, roughly, of batch [N, R, C] with R ≤ C."""
    x = batch.to(torch.bfloat16)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        product = torch.bmm(x, x.transpose(1, 2))
        step = torch.baddbmm(product, product, product, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, step, x, beta=3.4445, alpha=1.0)
    return x.float()


class Optimizer:
    """Muon for the layers' matrices, AdamW for the rest."""

    def __init__(self, network):
        named = list(network.named_parameters())
        self.adam = [p for n, p in named if p.dim() == 1 or "embed" in n]
        self.groups = {}
        for name, parameter in named:
            if parameter.dim() == 2 and "embed" not in name:
                self.groups.setdefault(tuple(sorted(parameter.shape)), []).append(parameter)
        self.first = [torch.zeros_like(p) for p in self.adam]
        self.second = [torch.zeros_like(p) for p in self.adam]
        self.momentum = {shape: [torch.zeros_like(p) for p in group] for shape, group in self.groups.items()}
        self.count = 0

    def state(self):
        return {"first": self.first, "second": self.second, "momentum": self.momentum, "count": self.count}

    def load(self, state):
        self.__dict__.update(state)

    def step(self, workers, matrix_rate, adam_rate):
        self.count += 1
        tasks = [workers.submit(self.step_matrices, shape, matrix_rate) for shape in self.groups]
        tasks.append(workers.submit(self.step_adam, adam_rate))
        for task in tasks:
            task.result()

    @torch.no_grad()
    def step_adam(self, rate):
        for parameter, first, second in zip(self.adam, self.first, self.second):
            first.lerp_(parameter.grad, 0.1)
            second.mul_(0.98).addcmul_(parameter.grad, parameter.grad, value=0.02)
            spread = (second / (1 - 0.98**self.count)).sqrt_().add_(1e-8)
            if parameter.dim() == 2:
                parameter.mul_(1 - rate * WEIGHT_DECAY)
            parameter.addcdiv_(first, spread, value=-rate / (1 - 0.9**self.count))

    @torch.no_grad()
    def step_matrices(self, shape, rate):
        group = self.groups[shape]
        updates = []
        for parameter, momentum in zip(group, self.momentum[shape]):
            momentum.lerp_(parameter.grad, 0.05)
            update = parameter.grad.lerp(momentum, 0.95)
            updates.append(update if update.shape[0] <= update.shape[1] else update.t())
        scale = 0.2 * math.sqrt(shape[1])
        for parameter, update in zip(group, orthogonalise(torch.stack(updates))):
            parameter.mul_(1 - rate * WEIGHT_DECAY)
            flat = update if parameter.shape == update.shape else update.t()
            parameter.add_(flat, alpha=-rate * scale)


@torch.no_grad()
def bits_per_byte(network, formatter, source, limit=40, dtype=torch.bfloat16):
    """Held-out cross entropy of plain text in bits per byte."""
    inputs, labels, size = data.held_rows(formatter, source, limit)
    total = 0.0
    for start in range(0, len(inputs), 16):
        part = labels[start : start + 16]
        count = (part >= 0).sum().item()
        total += network.loss(inputs[start : start + 16], part, dtype).item() * count
    return total / math.log(2) / size


class Run:
    """One training run: network, optimizer, stream, average and clock."""

    def __init__(self, options):
        self.options = options
        coder = tokenizer.Tokenizer(os.path.join(options.out, "tokenizer.json"))
        self.network = model.Llama(model.Config(vocab_size=len(coder.vocab) + len(coder.special)))
        if options.init_from:
            self.network.load_state_dict(weights.read(options.init_from))
        self.optimizer = Optimizer(self.network)
        self.stream = data.Stream(data.Formatter(coder, data.load_items(options.out)))
        self.held = data.Formatter(coder, data.load_items(options.out, held=True))
        self.average = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.taken, self.tokens, self.seconds = 0, 0, 0.0
        self.workers = concurrent.futures.ThreadPoolExecutor(options.workers)
        self.parameters = list(self.network.parameters())
        if options.resume:
            self.load(torch.load(options.resume))

    def load(self, saved):
        self.network.load_state_dict(saved["network"])
        self.optimizer.load(saved["optimizer"])
        self.stream.load(saved["stream"])
        self.average = saved["average"]
        self.taken, self.tokens, self.seconds = saved["steps"], saved["tokens"], saved["seconds"]

    def save(self, name="checkpoint.pt"):
        path = os.path.join(self.options.out, name)
        saved = {
            "network": self.network.state_dict(), "average": self.average, "optimizer": self.optimizer.state(),
            "stream": self.stream.state(), "steps": self.taken, "tokens": self.tokens, "seconds": self.seconds,
        }  # fmt: skip
        torch.save(saved, path + ".part")
        os.replace(path + ".part", path)

    def progress(self):
        options = self.options
        return self.taken / options.steps if options.steps else self.seconds / 60 / options.minutes

    def rate(self):
        """The share of the full learning rate at this step."""
        left = (1 - self.progress()) / self.options.decay
        return min(1.0, (self.taken + 1) / WARMUP, max(0.02, left))

    def step(self):
        start = time.time()
        ids, labels = self.stream.batch(self.options.rows)
        total = (labels >= 0).sum().item()
        parts = zip(ids.split(PART), labels.split(PART))
        tasks = [self.workers.submit(self.gradients, *part, total) for part in parts]
        loss = 0.0
        for task in concurrent.futures.as_completed(tasks):
            share, found = task.result()
            loss += share
            for parameter, gradient in zip(self.parameters, found):
                if parameter.grad is None:
                    parameter.grad = gradient
                else:
                    parameter.grad += gradient
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        rate = self.rate()
        self.optimizer.step(self.workers, rate * self.options.matrix_rate, rate * self.options.adam_rate)
        self.network.zero_grad(set_to_none=True)
        self.taken += 1
        self.tokens += ids.numel()
        if self.taken % AVERAGE_EVERY == 0:
            keep = min(AVERAGE, self.taken / (self.taken + 10 * AVERAGE_EVERY))
            for name, value in self.network.state_dict().items():
                self.average[name].lerp_(value, 1 - keep)
        self.seconds += time.time() - start
        return loss, norm.item()

    def gradients(self, ids, labels, total):
        """The loss of some rows, as their share of the mean over total labels, and its gradients."""
        loss = self.network.loss(ids, labels) * ((labels >= 0).sum().item() / total)
        return loss.item(), torch.autograd.grad(loss, self.parameters)

    def report(self, losses, norm, began, first):
        speed = (self.tokens - first) / (time.time() - began)
        print(
            f"step {self.taken} loss {sum(losses) / len(losses):.4f} norm {norm:.2f} rate {self.rate():.3f} "
            f"tokens {self.tokens / 1e6:.2f}M {speed:.0f}/s minutes {self.seconds / 60:.1f}",
            flush=True,
        )

    def judge(self):
        kept = {name: value.clone() for name, value in self.network.state_dict().items()}
        figures = []
        for label in ("now", "average"):
            for source in ("tinystories", "storybooks", "ebooks", "tang", "ci"):
                figures.append(f"{source} {bits_per_byte(self.network, self.held, source, 16):.3f}")
            print(f"held out, bits per byte, {label}:", *figures[-5:], flush=True)
            self.network.load_state_dict(self.average)
        self.network.load_state_dict(kept)

    def train(self):
        saved, began, first, losses = time.time(), time.time(), self.tokens, []
        while self.progress() < 1:
            loss, norm = self.step()
            losses.append(loss)
            if self.taken % 20 == 0:
                self.report(losses, norm, began, first)
                began, first, losses = time.time(), self.tokens, []
            if self.taken % 400 == 0:
                self.judge()
                print("epochs", {name: round(s + self.stream.position[name] / len(self.stream.formatter.items[name]), 2)
                                 for name, s in self.stream.epoch.items()}, flush=True)  # fmt: skip
                began, first = time.time(), self.tokens
            if time.time() - saved > 240:
                self.save()
                saved = time.time()
        self.judge()
        self.save()
        self.save("final.pt")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="the folder prepare.py wrote; checkpoints go there as well")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=100)
    parser.add_argument("--rows", type=int, default=16, help="rows of 512 tokens in a step")
    parser.add_argument("--matrix-rate", type=float, default=4e-3)
    parser.add_argument("--adam-rate", type=float, default=2e-3)
    parser.add_argument("--decay", type=float, default=0.25, help="part of the budget over which the rate falls")
    parser.add_argument("--init-from", help="model.safetensors to start from")
    parser.add_argument("--resume", help="checkpoint to go on from")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    Run(options).train()


if __name__ == "__main__":
    main()
