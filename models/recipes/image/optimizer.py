"""Muon (Jordan 2024) for matrices and convolutions, AdamW for everything else."""

import math

import torch

WEIGHT_DECAY = 0.02


def orthogonalise(x):
    """The nearest semi-orthogonal matrices, roughly, of x [N, R, C] with R ≤ C, by five Newton-Schulz steps."""
    x = x.to(torch.bfloat16)
    x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).to(x.dtype)
    for _ in range(5):
        product = torch.bmm(x, x.transpose(1, 2))
        step = torch.baddbmm(product, product, product, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, step, x, beta=3.4445, alpha=1.0)
    return x.float()


class Optimizer:
    """adam(name) tells which of the parameters with two or more dimensions AdamW takes all the same."""

    def __init__(self, named, adam):
        named = list(named)
        is_adam = {name: p.dim() < 2 or adam(name) for name, p in named}
        self.adam = [p for name, p in named if is_adam[name]]
        self.groups = {}
        for name, parameter in named:
            if not is_adam[name]:
                rows = parameter.shape[0]
                shape = (rows, parameter.numel() // rows)
                self.groups.setdefault((min(shape), max(shape)), []).append(parameter)
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
        shapes = sorted(self.groups, key=lambda shape: -shape[0] ** 2 * shape[1] * len(self.groups[shape]))
        tasks = [workers.submit(self.step_matrices, shape, self.groups[shape], matrix_rate) for shape in shapes]
        tasks.append(workers.submit(self.step_adam, adam_rate))
        for task in tasks:
            task.result()

    @torch.no_grad()
    def step_adam(self, adam_rate):
        for parameter, first, second in zip(self.adam, self.first, self.second):
            first.lerp_(parameter.grad, 0.1)
            second.mul_(0.98).addcmul_(parameter.grad, parameter.grad, value=0.02)
            spread = (second / (1 - 0.98**self.count)).sqrt_().add_(1e-8)
            parameter.addcdiv_(first, spread, value=-adam_rate / (1 - 0.9**self.count))

    @torch.no_grad()
    def step_matrices(self, shape, group, rate):
        updates = []
        for parameter, momentum in zip(group, self.momentum[shape]):
            momentum.lerp_(parameter.grad, 0.05)
            update = parameter.grad.lerp(momentum, 0.95).flatten(1)
            updates.append(update if update.shape[0] <= update.shape[1] else update.t())
        scale = 0.2 * math.sqrt(shape[1])
        for parameter, update in zip(group, orthogonalise(torch.stack(updates))):
            parameter.mul_(1 - rate * WEIGHT_DECAY)
            flat = update if parameter.shape[0] <= parameter.numel() // parameter.shape[0] else update.t()
            parameter.add_(flat.reshape(parameter.shape), alpha=-rate * scale)
