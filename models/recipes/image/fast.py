"""norm.c for PyTorch: group norm with SiLU, layer norm and GEGLU; without a C compiler the same in PyTorch's operations."""

import ctypes
import os
import subprocess
import tempfile

import torch
import torch.nn.functional as F


def build():
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "norm.c")
    target = os.path.join(tempfile.mkdtemp(), "norm.so")
    try:
        subprocess.run(["cc", "-Ofast", "-march=native", "-fopenmp", "-shared", "-fPIC", source, "-o", target, "-lm"], check=True)
        return ctypes.CDLL(target)
    except (OSError, subprocess.CalledProcessError):
        return None


LIBRARY = build()


def address(tensor):
    return ctypes.c_void_p(tensor.data_ptr())


def long(value):
    return ctypes.c_long(value)


class Norm(torch.autograd.Function):
    """x bfloat16, its memory [batch, cells, channels]."""

    @staticmethod
    def forward(ctx, x, gamma, beta, shape, groups, eps, silu, own):
        batch, cells, channels = shape
        y = torch.empty_like(x)
        stats = torch.empty(batch, groups, 2)
        sizes = (long(batch), long(cells), long(channels), long(groups))
        LIBRARY.norm_forward(address(x), address(gamma), address(beta), address(y), address(stats), *sizes, ctypes.c_float(eps), int(silu), int(own))  # fmt: skip
        ctx.save_for_backward(x, gamma, beta, stats)
        ctx.sizes, ctx.silu, ctx.own = sizes, silu, own
        return y

    @staticmethod
    def backward(ctx, grad):
        x, gamma, beta, stats = ctx.saved_tensors
        if grad.stride() != x.stride():
            grad = torch.empty_like(x).copy_(grad)
        dx, dgamma, dbeta = torch.empty_like(x), torch.zeros_like(gamma), torch.zeros_like(beta)
        LIBRARY.norm_backward(address(grad), address(x), address(gamma), address(beta), address(stats), address(dx),
                              address(dgamma), address(dbeta), *ctx.sizes, int(ctx.silu), int(ctx.own))  # fmt: skip
        return dx, dgamma, dbeta, None, None, None, None, None


class Geglu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        x = x.contiguous()
        ctx.save_for_backward(x)
        width = x.shape[-1] // 2
        y = x.new_empty(*x.shape[:-1], width)
        LIBRARY.geglu_forward(address(x), address(y), long(y.numel() // width), long(width))
        return y

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        grad, dx, width = grad.contiguous(), torch.empty_like(x), x.shape[-1] // 2
        LIBRARY.geglu_backward(address(grad), address(x), address(dx), long(grad.numel() // width), long(width))
        return dx


def usable(x):
    return LIBRARY is not None and x.dtype == torch.bfloat16 and not x.is_cuda


def group_norm(x, module, silu):
    """Group norm of x [B, C, H, W], then SiLU if asked for."""
    if usable(x):
        x = x.contiguous(memory_format=torch.channels_last)
        shape = (x.shape[0], x.shape[2] * x.shape[3], x.shape[1])
        return Norm.apply(x, module.weight, module.bias, shape, module.num_groups, module.eps, silu, False)
    y = F.group_norm(x.float(), module.num_groups, module.weight, module.bias, module.eps)
    return (F.silu(y) if silu else y).to(x.dtype)


def film_norm(x, module, scale, shift):
    """silu(norm(x)·(1+scale) + shift) of x [B, C, H, W]; scale and shift are float32 [B, C]."""
    gamma, beta = module.weight * (1 + scale), module.bias * (1 + scale) + shift
    if usable(x):
        x = x.contiguous(memory_format=torch.channels_last)
        shape = (x.shape[0], x.shape[2] * x.shape[3], x.shape[1])
        return Norm.apply(x, gamma.contiguous(), beta.contiguous(), shape, module.num_groups, module.eps, True, True)
    y = F.group_norm(x.float(), module.num_groups, None, None, module.eps)
    return F.silu(y * gamma[:, :, None, None] + beta[:, :, None, None]).to(x.dtype)


def layer_norm(x, module):
    if usable(x):
        x = x.contiguous()
        channels = x.shape[-1]
        return Norm.apply(x, module.weight, module.bias, (x.numel() // channels, 1, channels), 1, module.eps, False, False)
    return F.layer_norm(x.float(), module.normalized_shape, module.weight, module.bias, module.eps).to(x.dtype)


def geglu(x):
    if usable(x):
        return Geglu.apply(x)
    value, gate = x.chunk(2, -1)
    return value * F.gelu(gate)
