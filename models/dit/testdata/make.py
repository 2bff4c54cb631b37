"""Makes the cases of this folder: what the shared goldens do not have of the transformers.

  sd35_medium   SD3.5 medium's second attention, latents that are not square
  pixart_alpha  PixArt α's inputs of resolution and aspect ratio, latents that are not square
  dit           latents that are not square, and not of the size that it was trained with

The reference is written below after the papers (arXiv 2403.03206, 2310.00426, 2212.09748)
and the names and orders of diffusers 0.31, in double precision: no published
implementation is run. It needs PyTorch 1.13.

    python3 make.py
"""

import json
import math
import os
import struct

import torch
from torch.nn import functional as F

HEADS, DIM = 2, 6
WIDTH = HEADS * DIM
PATCH, LATENT = 2, 4
torch.set_default_dtype(torch.float64)


class Weights:
    """Random tensors, made when they are first asked for."""

    def __init__(self):
        self.tensors = {}

    def get(self, name, *shape):
        if name not in self.tensors:
            fan = shape[-1] if len(shape) == 2 else math.prod(shape[1:]) if len(shape) == 4 else 0
            x = torch.randn(shape) * (1 / math.sqrt(fan) if fan else 0.3)
            if "norm_" in name:
                x = x + 1
            self.tensors[name] = x.float().double()
        return self.tensors[name]

    def linear(self, name, x, out):
        return F.linear(x, self.get(name + ".weight", out, x.shape[-1]), self.get(name + ".bias", out))

    def embedder(self, name, x, out, act=F.silu):
        return self.linear(name + ".linear_2", act(self.linear(name + ".linear_1", x, out)), out)


def gelu(x):
    return F.gelu(x, approximate="tanh")


def sines(t, shift=0.0):
    f = torch.exp(-math.log(10000) * torch.arange(128) / (128 - shift))
    a = t[:, None] * f
    return torch.cat([a.cos(), a.sin()], -1)


def positions(xs, ys):
    """[len(ys)·len(xs), WIDTH]: the column in the first half of the channels, the row in the second."""
    omega = 10000 ** -(torch.arange(WIDTH // 4) / (WIDTH / 4))
    one = lambda p: torch.cat([(p[:, None] * omega).sin(), (p[:, None] * omega).cos()], -1)
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    return torch.cat([one(x.flatten()), one(y.flatten())], -1)


def patches(w, x, pos):
    tokens = F.conv2d(x, w.get("pos_embed.proj.weight", WIDTH, LATENT, PATCH, PATCH), w.get("pos_embed.proj.bias", WIDTH), stride=PATCH)
    return tokens.flatten(2).transpose(1, 2) + pos


def unpatch(tokens, h, w, channels):
    x = tokens.reshape(-1, h // PATCH, w // PATCH, PATCH, PATCH, channels)
    return torch.einsum("nhwpqc->nchpwq", x).reshape(-1, channels, h, w)


def norm(x, shift, scale, eps=1e-6):
    return F.layer_norm(x, x.shape[-1:], eps=eps) * (1 + scale[:, None]) + shift[:, None]


def heads(x):
    return x.reshape(x.shape[0], x.shape[1], HEADS, DIM).transpose(1, 2)


def attend(q, k, v):
    y = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(DIM), -1) @ v
    return y.transpose(1, 2).flatten(2)


def rms(x, weight):
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


def project(w, name, x, names, normed):
    q, k, v = (heads(w.linear(f"{name}.{n}", x, WIDTH)) for n in names[:3])
    if normed:
        q, k = rms(q, w.get(f"{name}.{names[3]}.weight", DIM)), rms(k, w.get(f"{name}.{names[4]}.weight", DIM))
    return q, k, v


OWN = ("to_q", "to_k", "to_v", "norm_q", "norm_k")
ADDED = ("add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k")


def mlp(w, name, x):
    return w.linear(name + ".net.2", gelu(w.linear(name + ".net.0.proj", x, 4 * WIDTH)), WIDTH)


def sd35_medium(w, x, t, text, pooled):
    most, base = 10, 4
    h, wd = x.shape[2] // PATCH, x.shape[3] // PATCH
    axis = torch.arange(most) / (most / base)
    table = positions(axis, axis).float().double()
    w.tensors["pos_embed.pos_embed"] = table[None]
    top, left = (most - h) // 2, (most - wd) // 2
    pos = table.reshape(most, most, WIDTH)[top : top + h, left : left + wd].reshape(-1, WIDTH)
    img = patches(w, x, pos)
    temb = w.embedder("time_text_embed.timestep_embedder", sines(t), WIDTH) + w.embedder("time_text_embed.text_embedder", pooled, WIDTH)
    txt = w.linear("context_embedder", text, WIDTH)
    act = F.silu(temb)
    for i in range(2):
        b, last = f"transformer_blocks.{i}", i == 1
        m = w.linear(b + ".norm1.linear", act, (6 if last else 9) * WIDTH).chunk(6 if last else 9, 1)
        c = w.linear(b + ".norm1_context.linear", act, (2 if last else 6) * WIDTH).chunk(2 if last else 6, 1)
        img_in = norm(img, m[0], m[1])
        txt_in = norm(txt, c[1], c[0]) if last else norm(txt, c[0], c[1])
        parts = zip(project(w, b + ".attn", img_in, OWN, True), project(w, b + ".attn", txt_in, ADDED, True))
        y = attend(*(torch.cat(p, 2) for p in parts))
        n = img.shape[1]
        both = img + m[2][:, None] * w.linear(b + ".attn.to_out.0", y[:, :n], WIDTH)
        if not last:
            own = attend(*project(w, b + ".attn2", norm(img, m[6], m[7]), OWN, True))
            both = both + m[8][:, None] * w.linear(b + ".attn2.to_out.0", own, WIDTH)
        img = both + m[5][:, None] * mlp(w, b + ".ff", norm(both, m[3], m[4]))
        if not last:
            txt = txt + c[2][:, None] * w.linear(b + ".attn.to_add_out", y[:, n:], WIDTH)
            txt = txt + c[5][:, None] * mlp(w, b + ".ff_context", norm(txt, c[3], c[4]))
    scale, shift = w.linear("norm_out.linear", act, 2 * WIDTH).chunk(2, 1)
    out = w.linear("proj_out", norm(img, shift, scale), PATCH * PATCH * LATENT)
    return unpatch(out, x.shape[2], x.shape[3], LATENT)


def pixart_alpha(w, x, t, text, mask, resolution):
    base, interpolation = 64, 2
    h, wd = x.shape[2] // PATCH, x.shape[3] // PATCH
    pos = positions(torch.arange(wd) / (wd / base) / interpolation, torch.arange(h) / (h / base) / interpolation)
    img = patches(w, x, pos)
    emb = w.embedder("adaln_single.emb.timestep_embedder", sines(t), WIDTH)
    third = WIDTH // 3
    n = x.shape[0]
    size = torch.tensor([resolution], dtype=torch.float64).expand(n, 2)
    sizes = w.embedder("adaln_single.emb.resolution_embedder", sines(size.flatten()), third).reshape(n, -1)
    ratio = w.embedder("adaln_single.emb.aspect_ratio_embedder", sines(size[:, 0] / size[:, 1]), third)
    emb = emb + torch.cat([sizes, ratio], 1)
    common = w.linear("adaln_single.linear", F.silu(emb), 6 * WIDTH)
    txt = w.embedder("caption_projection", text, WIDTH, gelu)
    bias = ((1 - mask) * -10000.0)[:, None, None]
    for i in range(1):
        b = f"transformer_blocks.{i}"
        m = (w.get(b + ".scale_shift_table", 6, WIDTH)[None] + common.reshape(-1, 6, WIDTH)).unbind(1)
        y = attend(*project(w, b + ".attn1", norm(img, m[0], m[1]), OWN, False))
        img = img + m[2][:, None] * w.linear(b + ".attn1.to_out.0", y, WIDTH)
        q = heads(w.linear(b + ".attn2.to_q", img, WIDTH))
        k, v = (heads(w.linear(f"{b}.attn2.{name}", txt, WIDTH)) for name in ("to_k", "to_v"))
        y = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(DIM) + bias, -1) @ v
        img = img + w.linear(b + ".attn2.to_out.0", y.transpose(1, 2).flatten(2), WIDTH)
        img = img + m[5][:, None] * mlp(w, b + ".ff", norm(img, m[3], m[4]))
    shift, scale = (w.get("scale_shift_table", 2, WIDTH)[None] + emb[:, None]).unbind(1)
    out = w.linear("proj_out", norm(img, shift, scale), PATCH * PATCH * 2 * LATENT)
    return unpatch(out, x.shape[2], x.shape[3], 2 * LATENT)


def dit(w, x, t, labels):
    base = 4
    h, wd = x.shape[2] // PATCH, x.shape[3] // PATCH
    img = patches(w, x, positions(torch.arange(wd) / (wd / base), torch.arange(h) / (h / base)))
    act = None
    for i in range(1):
        b = f"transformer_blocks.{i}"
        emb = w.embedder(b + ".norm1.emb.timestep_embedder", sines(t, 1), WIDTH)
        act = F.silu(emb + w.get(b + ".norm1.emb.class_embedder.embedding_table.weight", 6, WIDTH)[labels])
        m = w.linear(b + ".norm1.linear", act, 6 * WIDTH).chunk(6, 1)
        y = attend(*project(w, b + ".attn1", norm(img, m[0], m[1]), OWN, False))
        img = img + m[2][:, None] * w.linear(b + ".attn1.to_out.0", y, WIDTH)
        img = img + m[5][:, None] * mlp(w, b + ".ff", norm(img, m[3], m[4], 1e-5))
    shift, scale = w.linear("proj_out_1", act, 2 * WIDTH).chunk(2, 1)
    out = w.linear("proj_out_2", norm(img, shift, scale), PATCH * PATCH * 2 * LATENT)
    return unpatch(out, x.shape[2], x.shape[3], 2 * LATENT)


def save(path, tensors):
    header, data = {}, b""
    for name, x in tensors.items():
        kind, form = ("I64", "<i8") if x.dtype == torch.int64 else ("F32", "<f4")
        raw = x.contiguous().numpy().astype(form).tobytes()
        header[name] = {"dtype": kind, "shape": list(x.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def main():
    torch.manual_seed(6)
    draw = lambda *shape: torch.randn(shape).float().double()
    common = {"num_attention_heads": HEADS, "attention_head_dim": DIM, "in_channels": LATENT, "patch_size": PATCH}
    times = torch.tensor([812.5, 41.0])
    cases = {
        "sd35_medium": (sd35_medium, {
            "sample": draw(2, LATENT, 10, 6), "timestep": times, "encoder_hidden_states": draw(2, 5, 8), "pooled": draw(2, 7),
        }, {
            "_class_name": "SD3Transformer2DModel", "num_layers": 2, "sample_size": 8, "out_channels": LATENT, "joint_attention_dim": 8,
            "caption_projection_dim": WIDTH, "pooled_projection_dim": 7, "pos_embed_max_size": 10, "qk_norm": "rms_norm",
            "dual_attention_layers": [0],
        }),
        "pixart_alpha": (pixart_alpha, {
            "sample": draw(2, LATENT, 6, 10), "timestep": times, "encoder_hidden_states": draw(2, 5, 8),
            "encoder_attention_mask": torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.float64),
            "resolution": torch.tensor([768.0, 1280.0]),
        }, {
            "_class_name": "PixArtTransformer2DModel", "num_layers": 1, "sample_size": 128, "out_channels": 2 * LATENT,
            "cross_attention_dim": WIDTH, "caption_channels": 8, "interpolation_scale": None, "use_additional_conditions": None,
        }),
        "dit": (dit, {
            "sample": draw(2, LATENT, 6, 10), "timestep": times, "class_labels": torch.tensor([5, 2]),
        }, {
            "_class_name": "Transformer2DModel", "norm_type": "ada_norm_zero", "num_layers": 1, "sample_size": 8,
            "out_channels": 2 * LATENT, "num_embeds_ada_norm": 5,
        }),
    }
    for name, (reference, given, config) in cases.items():
        w = Weights()
        args = list(given.values())
        if name == "pixart_alpha":
            args[-1] = tuple(given["resolution"].tolist())
        out = reference(w, *args)
        os.makedirs(name, exist_ok=True)
        with open(f"{name}/config.json", "w") as f:
            json.dump(common | config, f, indent=1)
        save(f"{name}/diffusion_pytorch_model.safetensors", w.tensors)
        save(f"{name}/golden.safetensors", given | {"out": out})
        with open(f"{name}/case.json", "w") as f:
            json.dump({"tensors": {"out": {"tolerance": 1e-4}}}, f)
        print(f"{name}: {tuple(out.shape)}, spread {out.std():.3f}")


if __name__ == "__main__":
    main()
