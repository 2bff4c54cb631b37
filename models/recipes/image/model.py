"""transformers' CLIPTextModel and diffusers' UNet2DConditionModel (the Stable Diffusion 1.x kind) with their tensor names.

Parameters are float32; activations are bfloat16, channels last, so that matrices and convolutions run on AMX.
"""

import math

import torch
from torch import nn
import torch.nn.functional as F

import fast
from tokenizer import LENGTH
from vae import Conv

TEXT = {
    "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "hidden_act": "quick_gelu", "hidden_size": 256,
    "intermediate_size": 512, "num_attention_heads": 4, "num_hidden_layers": 4, "max_position_embeddings": LENGTH,
    "vocab_size": 2560, "layer_norm_eps": 1e-05, "projection_dim": 256, "attention_dropout": 0.0,
    "initializer_factor": 1.0, "initializer_range": 0.02, "bos_token_id": 2558, "eos_token_id": 2559, "pad_token_id": 2559,
    "torch_dtype": "float32", "transformers_version": "4.47.0",
}  # fmt: skip
UNET = {
    "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.31.0", "sample_size": 16, "in_channels": 4,
    "out_channels": 4, "center_input_sample": False, "flip_sin_to_cos": True, "freq_shift": 0,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "only_cross_attention": False,
    "block_out_channels": [128, 160], "layers_per_block": 1, "downsample_padding": 1, "mid_block_scale_factor": 1,
    "act_fn": "silu", "norm_num_groups": 32, "norm_eps": 1e-05, "cross_attention_dim": 256,
    "transformer_layers_per_block": 1, "attention_head_dim": [4, 5], "use_linear_projection": True,
    "resnet_time_scale_shift": "scale_shift", "time_embedding_type": "positional", "time_embedding_dim": 256, "conv_in_kernel": 3, "conv_out_kernel": 3,
    "addition_embed_type": "text", "addition_embed_type_num_heads": 8,
}  # fmt: skip


class Linear(nn.Linear):
    """A product in the type of its input; the parameters stay float32."""

    def forward(self, x):
        return F.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype) if self.bias is not None else None)


def attend(q, k, v, heads, causal=False):
    """Attention of q [B, T, C] over k, v [B, S, C]."""
    batch, length, width = q.shape
    q, k, v = (x.view(batch, -1, heads, width // heads).transpose(1, 2).reshape(batch * heads, -1, width // heads) for x in (q, k, v))
    scores = torch.bmm(q * (width // heads) ** -0.5, k.transpose(1, 2))
    if causal:
        hidden = torch.ones(length, length, dtype=torch.bool, device=q.device).triu_(1)
        scores = scores.masked_fill(hidden, -1e4)
    out = torch.bmm(torch.softmax(scores, -1), v)
    return out.view(batch, heads, length, -1).transpose(1, 2).reshape(batch, length, width)


# The text encoder.


class ClipAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (Linear(width, width) for _ in range(4))

    def forward(self, x):
        return self.out_proj(attend(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads, causal=True))


class ClipMLP(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.fc1, self.fc2 = Linear(width, inner), Linear(inner, width)

    def forward(self, x):
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x))


class ClipLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, eps = config["hidden_size"], config["layer_norm_eps"]
        self.self_attn = ClipAttention(width, config["num_attention_heads"])
        self.layer_norm1 = nn.LayerNorm(width, eps)
        self.mlp = ClipMLP(width, config["intermediate_size"])
        self.layer_norm2 = nn.LayerNorm(width, eps)

    def forward(self, x):
        x = x + self.self_attn(fast.layer_norm(x, self.layer_norm1))
        return x + self.mlp(fast.layer_norm(x, self.layer_norm2))


class ClipEmbeddings(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.token_embedding = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.position_embedding = nn.Embedding(config["max_position_embeddings"], config["hidden_size"])


class ClipEncoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.layers = nn.ModuleList(ClipLayer(config) for _ in range(config["num_hidden_layers"]))


class ClipText(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embeddings = ClipEmbeddings(config)
        self.encoder = ClipEncoder(config)
        self.final_layer_norm = nn.LayerNorm(config["hidden_size"], config["layer_norm_eps"])


class CLIPTextModel(nn.Module):
    def __init__(self, config=TEXT):
        super().__init__()
        self.text_model = ClipText(config)
        for name, parameter in self.named_parameters():
            if name.endswith("embedding.weight"):
                nn.init.normal_(parameter, 0, 0.5 if "token" in name else 0.1)

    def forward(self, ids, dtype=torch.bfloat16):
        """States [B, L, C] of the last layer, normalised, for ids [B, L]."""
        model = self.text_model
        x = model.embeddings.token_embedding(ids) + model.embeddings.position_embedding.weight[: ids.shape[1]]
        x = x.to(dtype)
        for layer in model.encoder.layers:
            x = layer(x)
        return fast.layer_norm(x, model.final_layer_norm)


# The UNet.


class Resnet(nn.Module):
    def __init__(self, inputs, outputs, time, config):
        super().__init__()
        groups, eps = config["norm_num_groups"], config["norm_eps"]
        self.norm1 = nn.GroupNorm(groups, inputs, eps)
        self.conv1 = Conv(inputs, outputs, 3, padding=1)
        self.time_emb_proj = Linear(time, 2 * outputs)
        self.norm2 = nn.GroupNorm(groups, outputs, eps)
        self.conv2 = Conv(outputs, outputs, 3, padding=1)
        self.conv_shortcut = Conv(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x, time):
        """time is the activated embedding [B, T]."""
        h = self.conv1(fast.group_norm(x, self.norm1, True))
        scale, shift = self.time_emb_proj(time).float().chunk(2, 1)
        h = self.conv2(fast.film_norm(h, self.norm2, scale, shift))
        return h + (self.conv_shortcut(x) if self.conv_shortcut is not None else x)


class Attention(nn.Module):
    def __init__(self, width, context, heads):
        super().__init__()
        self.heads = heads
        self.to_q = Linear(width, width, bias=False)
        self.to_k, self.to_v = Linear(context, width, bias=False), Linear(context, width, bias=False)
        self.to_out = nn.ModuleList([Linear(width, width)])

    def forward(self, x, context):
        return self.to_out[0](attend(self.to_q(x), self.to_k(context), self.to_v(context), self.heads))


class Gate(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.proj = Linear(width, 2 * inner)

    def forward(self, x):
        return fast.geglu(self.proj(x))


class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.ModuleList([Gate(width, 4 * width), nn.Dropout(0.0), Linear(4 * width, width)])

    def forward(self, x):
        return self.net[2](self.net[0](x))


class TransformerBlock(nn.Module):
    def __init__(self, width, context, heads):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attn1 = Attention(width, width, heads)
        self.attn2 = Attention(width, context, heads)
        self.ff = FeedForward(width)

    def forward(self, x, context):
        h = fast.layer_norm(x, self.norm1)
        x = x + self.attn1(h, h)
        x = x + self.attn2(fast.layer_norm(x, self.norm2), context)
        return x + self.ff(fast.layer_norm(x, self.norm3))


class Transformer(nn.Module):
    def __init__(self, width, config):
        super().__init__()
        self.norm = nn.GroupNorm(config["norm_num_groups"], width, 1e-6)
        self.proj_in, self.proj_out = Linear(width, width), Linear(width, width)
        heads = config["attention_head_dim"][config["block_out_channels"].index(width)]  # their number, in spite of its name
        block = TransformerBlock(width, config["cross_attention_dim"], heads)
        self.transformer_blocks = nn.ModuleList([block])

    def forward(self, x, context):
        batch, width, height, breadth = x.shape
        h = fast.group_norm(x, self.norm, False).permute(0, 2, 3, 1).reshape(batch, -1, width)
        h = self.proj_in(h)
        for block in self.transformer_blocks:
            h = block(h, context)
        h = self.proj_out(h).view(batch, height, breadth, width).permute(0, 3, 1, 2)
        return x + h


class Sampler(nn.Module):
    """Halves the picture by a stride, or doubles it first."""

    def __init__(self, width, down):
        super().__init__()
        self.down = down
        self.conv = Conv(width, width, 3, stride=2 if down else 1, padding=1)

    def forward(self, x):
        return self.conv(x if self.down else F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Stage(nn.Module):
    """A down or up block: resnets, each followed by a transformer if attends, then a sampler if any."""

    def __init__(self, widths, time, config, attends, sampler):
        super().__init__()
        if attends:
            self.attentions = nn.ModuleList(Transformer(outputs, config) for _, outputs in widths)
        self.resnets = nn.ModuleList(Resnet(inputs, outputs, time, config) for inputs, outputs in widths)
        if sampler:
            setattr(self, sampler, nn.ModuleList([Sampler(widths[-1][1], sampler == "downsamplers")]))
        self.attends = attends

    def layer(self, index, x, time, context):
        x = self.resnets[index](x, time)
        return self.attentions[index](x, context) if self.attends else x


class Middle(nn.Module):
    def __init__(self, width, time, config):
        super().__init__()
        self.attentions = nn.ModuleList([Transformer(width, config)])
        self.resnets = nn.ModuleList(Resnet(width, width, time, config) for _ in range(2))

    def forward(self, x, time, context):
        return self.resnets[1](self.attentions[0](self.resnets[0](x, time), context), time)


class TimeEmbedding(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.linear_1, self.linear_2 = Linear(inputs, outputs), Linear(outputs, outputs)

    def forward(self, x):
        return self.linear_2(F.silu(self.linear_1(x)))


class Pooling(nn.Module):
    """One vector of a text: attention of the tokens' mean over itself and the tokens."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(1, width) / width**0.5)
        self.k_proj, self.q_proj, self.v_proj = (Linear(width, width) for _ in range(3))

    def forward(self, x):
        first = x.mean(1, keepdim=True) + self.positional_embedding.to(x.dtype)
        x = torch.cat((first, x), 1)
        return attend(self.q_proj(first), self.k_proj(x), self.v_proj(x), self.heads)[:, 0]


class TextEmbedding(nn.Module):
    """What the whole text adds to the embedding of the time (addition_embed_type "text")."""

    def __init__(self, context, time, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(context)
        self.pool = Pooling(context, heads)
        self.proj = Linear(context, time)
        self.norm2 = nn.LayerNorm(time)
        
    def forward(self, context):
        return fast.layer_norm(self.proj(self.pool(fast.layer_norm(context, self.norm1))), self.norm2)


class UNet(nn.Module):
    def __init__(self, config=UNET):
        super().__init__()
        self.config = config
        widths, layers = config["block_out_channels"], config["layers_per_block"]
        time, self.first = config["time_embedding_dim"], widths[0]
        self.conv_in = Conv(config["in_channels"], widths[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(widths[0], time)
        self.down_blocks, skips, width = nn.ModuleList(), [widths[0]], widths[0]
        for index, (kind, outputs) in enumerate(zip(config["down_block_types"], widths)):
            last = index == len(widths) - 1
            pairs = [(width if layer == 0 else outputs, outputs) for layer in range(layers)]
            self.down_blocks.append(Stage(pairs, time, config, "CrossAttn" in kind, None if last else "downsamplers"))
            skips += [outputs] * (layers if last else layers + 1)
            width = outputs
        self.mid_block = Middle(width, time, config)
        self.up_blocks = nn.ModuleList()
        for index, (kind, outputs) in enumerate(zip(config["up_block_types"], reversed(widths))):
            pairs = []
            for _ in range(layers + 1):
                pairs.append((width + skips.pop(), outputs))
                width = outputs
            last = index == len(widths) - 1
            self.up_blocks.append(Stage(pairs, time, config, "CrossAttn" in kind, None if last else "upsamplers"))
        self.conv_norm_out = nn.GroupNorm(config["norm_num_groups"], widths[0], config["norm_eps"])
        self.conv_out = Conv(widths[0], config["out_channels"], 3, padding=1)
        with torch.no_grad():  # residual branches start small
            for name, parameter in self.named_parameters():
                if name.endswith(("conv2.weight", "proj_out.weight", "conv_out.weight")):
                    parameter.mul_(0.1)
        self.add_embedding = TextEmbedding(config["cross_attention_dim"], time, config["addition_embed_type_num_heads"])

    def forward(self, x, steps, context):
        """The prediction for latents x [B, 4, H, W] at steps int64 [B]; context is [B, L, C] in the type to compute in."""
        dtype, half = context.dtype, self.first // 2
        angles = steps[:, None].float() * torch.exp(torch.arange(half, device=x.device) * (-math.log(10000) / half))
        time = torch.cat((angles.cos(), angles.sin()), 1)
        time = F.silu(self.time_embedding(time) + self.add_embedding(context)).to(dtype)
        x = self.conv_in(x.to(dtype, memory_format=torch.channels_last))
        skips = [x]
        for block in self.down_blocks:
            for index in range(len(block.resnets)):
                x = block.layer(index, x, time, context)
                skips.append(x)
            if hasattr(block, "downsamplers"):
                x = block.downsamplers[0](x)
                skips.append(x)
        x = self.mid_block(x, time, context)
        for block in self.up_blocks:
            for index in range(len(block.resnets)):
                x = block.layer(index, torch.cat((x, skips.pop()), 1), time, context)
            if hasattr(block, "upsamplers"):
                x = block.upsamplers[0](x)
        return self.conv_out(fast.group_norm(x, self.conv_norm_out, True)).float()


class Stickers(nn.Module):
    """Both networks that learn together."""

    def __init__(self, seed=1, text=TEXT, unet=UNET):
        super().__init__()
        torch.manual_seed(seed)
        self.text_encoder = CLIPTextModel(text)
        self.unet = UNet(unet)

    def forward(self, x, steps, ids, dtype=torch.bfloat16):
        return self.unet(x, steps, self.text_encoder(ids, dtype))
