"""A small Llama in PyTorch, written for fast bfloat16 training on a CPU with AMX.

Module and parameter names are those of transformers' LlamaForCausalLM, so that
state_dict() is the exported checkpoint. Three operations have hand-written
gradients, because on a CPU memory traffic costs more than arithmetic: RMSNorm,
causal attention (Vaswani et al. 2017, grouped as in Ainslie et al. 2023) in
blocks of queries, and the loss over the vocabulary in blocks of rows.
"""

import dataclasses
import math

import torch
from torch import nn
import torch.nn.functional as F

BLOCK = 256  # queries of one attention block
ROWS = 1024  # rows of one block of the loss


@dataclasses.dataclass
class Config:
    """The fields of config.json that decide the network's shape."""

    vocab_size: int = 8192
    hidden_size: int = 320
    num_hidden_layers: int = 8
    num_attention_heads: int = 5
    num_key_value_heads: int = 5
    intermediate_size: int = 736
    max_position_embeddings: int = 512
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5

    @property
    def head_dim(self):
        return self.hidden_size // self.num_attention_heads


class Normalise(torch.autograd.Function):
    """x / rms(x); x is float32 [N, C], the result has the compute type."""

    @staticmethod
    def forward(ctx, x, eps, dtype):
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        normed = (x * scale).to(dtype)
        ctx.save_for_backward(normed, scale)
        return normed

    @staticmethod
    def backward(ctx, grad):
        normed, scale = ctx.saved_tensors
        mean = (grad * normed).mean(-1, keepdim=True)
        return torch.addcmul(grad, normed, mean, value=-1).float().mul_(scale), None, None


class RMSNorm(nn.Module):
    """RMSNorm whose weight the caller folds into the next matrix, which is smaller than x."""

    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x, dtype):
        return Normalise.apply(x, self.eps, dtype)


class Rotate(torch.autograd.Function):
    """x·cos + rotate_half(x)·sin; sin's two halves are equal, so the gradient is the rotation back."""

    @staticmethod
    def turn(x, cos, sin, sign):
        out = x * cos
        half = x.shape[-1] // 2
        out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-sign)
        out[..., half:].addcmul_(x[..., :half], sin[..., half:], value=sign)
        return out

    @staticmethod
    def forward(ctx, x, cos, sin):
        ctx.save_for_backward(cos, sin)
        return Rotate.turn(x, cos, sin, 1)

    @staticmethod
    def backward(ctx, grad):
        return Rotate.turn(grad, *ctx.saved_tensors, -1), None, None


class CausalAttention(torch.autograd.Function):
    """softmax(q·kᵀ)·v under a causal mask. q is [N, G, T, D], already scaled; k and v are [N, T, D]."""

    @staticmethod
    def forward(ctx, q, k, v):
        n, groups, length, width = q.shape
        out = torch.empty_like(q)
        size = min(BLOCK, length)
        mask = torch.full((size, size), -math.inf, dtype=q.dtype, device=q.device).triu_(1)
        probabilities = []
        for start in range(0, length, BLOCK):
            end = min(start + BLOCK, length)
            rows = q[:, :, start:end].reshape(n, -1, width)
            scores = torch.bmm(rows, k[:, :end].transpose(1, 2))
            view = scores.view(n, groups, end - start, end)
            view[..., start:end] += mask[: end - start, : end - start]
            weights = torch.softmax(scores, -1)
            out[:, :, start:end] = torch.bmm(weights, v[:, :end]).view(n, groups, -1, width)
            probabilities.append(weights)
        ctx.save_for_backward(q, k, v, *probabilities)
        return out

    @staticmethod
    def backward(ctx, grad):
        q, k, v, *probabilities = ctx.saved_tensors
        n, groups, length, width = q.shape
        grad_q = torch.empty_like(q)
        grad_k, grad_v = None, None
        for index in reversed(range(len(probabilities))):  # the last block sees every key
            weights = probabilities[index]
            start = index * BLOCK
            end = min(start + BLOCK, length)
            rows = q[:, :, start:end].reshape(n, -1, width)
            upstream = grad[:, :, start:end].reshape(n, -1, width)
            grad_weights = torch.bmm(upstream, v[:, :end].transpose(1, 2))
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            grad_q[:, :, start:end] = torch.bmm(grad_scores, k[:, :end]).view(n, groups, -1, width)
            part_k = torch.bmm(grad_scores.transpose(1, 2), rows)
            part_v = torch.bmm(weights.transpose(1, 2), upstream)
            if grad_k is None:
                grad_k, grad_v = part_k, part_v
            else:
                grad_k[:, :end] += part_k
                grad_v[:, :end] += part_v
        return grad_q, grad_k, grad_v


class SwiGLU(torch.autograd.Function):
    """silu(gate)·up over gate and up side by side in x, [N, 2F]."""

    @staticmethod
    def forward(ctx, x):
        gate, up = x.chunk(2, -1)
        ctx.save_for_backward(x)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        gate, up = x.chunk(2, -1)
        out = torch.empty_like(x)
        out_gate, out_up = out.chunk(2, -1)
        sigmoid = torch.sigmoid(gate)
        silu = gate * sigmoid
        torch.mul(grad, silu, out=out_up)
        # d silu/d gate = sigmoid + silu·(1 - sigmoid)
        slope = torch.addcmul(sigmoid, silu, 1 - sigmoid)
        torch.mul(slope.mul_(up), grad, out=out_gate)
        return out


class VocabularyLoss(torch.autograd.Function):
    """Mean cross entropy of hidden·weightᵀ against labels, logits never held as a whole."""

    @staticmethod
    def forward(ctx, hidden, weight, labels):
        count = hidden.shape[0]
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
        total = 0.0
        for start in range(0, count, ROWS):
            rows = hidden[start : start + ROWS]
            target = labels[start : start + ROWS].unsqueeze(1)
            probabilities = torch.softmax(torch.mm(rows, weight.t()).float(), -1)
            chosen = probabilities.gather(1, target)
            total -= chosen.clamp_min(1e-30).log().sum()
            probabilities.scatter_add_(1, target, torch.full_like(chosen, -1.0))
            grad_logits = probabilities.to(hidden.dtype)
            grad_hidden[start : start + ROWS] = torch.mm(grad_logits, weight)
            grad_weight += torch.mm(grad_logits.t(), rows)
        ctx.save_for_backward(grad_hidden.div_(count), grad_weight.div_(count))
        return total / count

    @staticmethod
    def backward(ctx, grad):
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grad, grad_weight * grad, None


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.frozen = None
        width, head = config.hidden_size, config.head_dim
        self.q_proj = nn.Linear(width, config.num_attention_heads * head, bias=False)
        self.k_proj = nn.Linear(width, config.num_key_value_heads * head, bias=False)
        self.v_proj = nn.Linear(width, config.num_key_value_heads * head, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * head, width, bias=False)

    def joint(self, scale, dtype):
        """The matrix of all three projections, with the norm's weight and q's 1/√D folded in."""
        if self.frozen is not None:
            return self.frozen
        q = self.q_proj.weight * self.config.head_dim**-0.5
        return (torch.cat((q, self.k_proj.weight, self.v_proj.weight)) * scale).to(dtype)

    def project(self, x, scale, batch, rope):
        """q [B, Hkv, G, T, D], divided by √D, k and v [B, Hkv, T, D]; q and k are rotated by their positions."""
        config = self.config
        heads, shared, head = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        joint = F.linear(x, self.joint(scale, x.dtype)).view(batch, -1, heads + 2 * shared, head)
        q, k, v = joint.transpose(1, 2).split((heads, shared, shared), 1)
        q = Rotate.apply(q.contiguous(), *rope)
        k = Rotate.apply(k.contiguous(), *rope)
        return q.view(batch, shared, heads // shared, -1, head), k, v.contiguous()

    def forward(self, x, scale, batch, rope):
        q, k, v = self.project(x, scale, batch, rope)
        length, head = k.shape[-2:]
        out = CausalAttention.apply(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1))
        out = out.view(batch, -1, length, head).transpose(1, 2).reshape(batch * length, -1)
        return F.linear(out, self.o_proj.weight.to(x.dtype))

    def step(self, x, scale, batch, rope, cache):
        """Attention of new positions over the cache, which they extend."""
        q, k, v = self.project(x, scale, batch, rope)
        k, v = cache.extend(k, v)
        length, seen = q.shape[3], k.shape[2]
        hidden = torch.ones(length, seen, dtype=torch.bool).triu_(seen - length + 1)
        hidden = hidden | (torch.arange(seen) < cache.padding.view(-1, 1, 1, 1, 1))
        scores = (q @ k.unsqueeze(2).transpose(-1, -2)).masked_fill(hidden, torch.finfo(q.dtype).min)
        out = torch.softmax(scores, -1) @ v.unsqueeze(2)
        out = out.flatten(1, 2).transpose(1, 2).reshape(batch * length, -1)
        return F.linear(out, self.o_proj.weight.to(x.dtype))


class Cache:
    """Keys and values [B, Hkv, T, D] of one layer; the first padding[b] positions of row b are no text."""

    def __init__(self, padding, capacity):
        self.padding, self.capacity = padding, capacity
        self.keys, self.values, self.length = None, None, 0

    def extend(self, k, v):
        """All keys and values so far, the new ones last."""
        if self.keys is None:
            shape = (*k.shape[:2], self.capacity, k.shape[3])
            self.keys, self.values = k.new_zeros(shape), v.new_zeros(shape)
        end = self.length + k.shape[2]
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.frozen = None
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def joint(self, scale, dtype):
        """The matrix of gate and up, with the norm's weight folded in."""
        if self.frozen is not None:
            return self.frozen
        return (torch.cat((self.gate_proj.weight, self.up_proj.weight)) * scale).to(dtype)

    def forward(self, x, scale):
        inner = SwiGLU.apply(F.linear(x, self.joint(scale, x.dtype)))
        return F.linear(inner, self.down_proj.weight.to(x.dtype))


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x, batch, rope, dtype, cache=None):
        normed, scale = self.input_layernorm(x, dtype), self.input_layernorm.weight
        if cache is None:
            update = self.self_attn(normed, scale, batch, rope)
        else:
            update = self.self_attn.step(normed, scale, batch, rope, cache)
        x = x + update.float()
        normed, scale = self.post_attention_layernorm(x, dtype), self.post_attention_layernorm.weight
        return x + self.mlp(normed, scale).float()


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Llama(nn.Module):
    """Decoder with tied embeddings. The residual stream is float32, products are in dtype."""

    def __init__(self, config, seed=1):
        super().__init__()
        self.config = config
        self.frozen = None
        self.model = Decoder(config)
        torch.manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                std = 0.02
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    std /= math.sqrt(2 * config.num_hidden_layers)
                nn.init.normal_(parameter, 0.0, std)

    def rope(self, start, length, dtype):
        """cos and sin of positions start … start+length-1, each [T, D]."""
        half = torch.arange(0, self.config.head_dim, 2, dtype=torch.float32) / self.config.head_dim
        positions = torch.arange(start, start + length, dtype=torch.float32)
        angles = torch.outer(positions, self.config.rope_theta**-half)
        angles = torch.cat((angles, angles), -1)
        device = self.model.norm.weight.device
        return angles.cos().to(device, dtype), angles.sin().to(device, dtype)

    def hidden(self, ids, dtype, caches=None):
        """The normalised last hidden states [B·T, C] of ids [B, T]; caches holds one Cache a layer."""
        batch, length = ids.shape
        start = caches[0].length if caches else 0
        rope = self.rope(start, length, dtype)
        x = F.embedding(ids.reshape(-1), self.model.embed_tokens.weight)
        for index, layer in enumerate(self.model.layers):
            x = layer(x, batch, rope, dtype, caches[index] if caches is not None else None)
        return self.model.norm(x, dtype)

    def output_weight(self, dtype):
        """The tied output matrix [V, C] with the last norm's weight folded in."""
        if self.frozen is not None:
            return self.frozen
        return (self.model.embed_tokens.weight * self.model.norm.weight).to(dtype)

    @torch.no_grad()
    def freeze(self):
        """Folds the norms' weights in once and for all, in float32, for writing."""
        for layer in self.model.layers:
            layer.self_attn.frozen = layer.self_attn.joint(layer.input_layernorm.weight, torch.float32)
            layer.mlp.frozen = layer.mlp.joint(layer.post_attention_layernorm.weight, torch.float32)
        self.frozen = self.output_weight(torch.float32)

    def loss(self, ids, labels, dtype=torch.bfloat16):
        """Mean cross entropy over the positions whose label is not negative."""
        hidden = self.hidden(ids, dtype)
        chosen = torch.nonzero(labels.reshape(-1) >= 0).squeeze(1)
        weight = self.output_weight(dtype)
        return VocabularyLoss.apply(hidden[chosen], weight, labels.reshape(-1)[chosen])

    def logits(self, ids, dtype=torch.float32, caches=None, last=False):
        """Logits [B, T, V], or [B, 1, V] of the last position alone."""
        hidden = self.hidden(ids, dtype, caches=caches).view(*ids.shape, -1)
        return F.linear(hidden[:, -1:] if last else hidden, self.output_weight(dtype))
