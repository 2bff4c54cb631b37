"""Makes the cases of this folder: tiny networks with random weights, in the layouts that
users have, and what the reference computes of one picture.

The reference is written below after the papers (ESRGAN, arXiv 1809.00219; Real-ESRGAN,
arXiv 2107.10833): no published implementation is run. It needs PyTorch 1.13.

    python3 make.py
"""

import json
import struct

import torch
from torch import nn
from torch.nn import functional as F


class Compact(nn.Module):
    def __init__(self, features, layers, scale):
        super().__init__()
        self.scale = scale
        body = [nn.Conv2d(3, features, 3, padding=1), nn.PReLU(features)]
        for _ in range(layers):
            body += [nn.Conv2d(features, features, 3, padding=1), nn.PReLU(features)]
        self.body = nn.ModuleList(body + [nn.Conv2d(features, 3 * scale * scale, 3, padding=1)])

    def forward(self, x):
        y = x
        for layer in self.body:
            y = layer(y)
        return F.pixel_shuffle(y, self.scale) + F.interpolate(x, scale_factor=self.scale, mode="nearest")


class Dense(nn.Module):
    def __init__(self, features, growth):
        super().__init__()
        for i in range(5):
            out = features if i == 4 else growth
            setattr(self, f"conv{i + 1}", nn.Conv2d(features + i * growth, out, 3, padding=1))

    def forward(self, x):
        maps = [x]
        for i in range(4):
            maps.append(F.leaky_relu(getattr(self, f"conv{i + 1}")(torch.cat(maps, 1)), 0.2))
        return x + 0.2 * self.conv5(torch.cat(maps, 1))


class Block(nn.Module):
    def __init__(self, features, growth):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (Dense(features, growth) for _ in range(3))

    def forward(self, x):
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))


class RRDB(nn.Module):
    def __init__(self, features, growth, blocks, ups, shuffle):
        super().__init__()
        self.ups, self.shuffle = ups, shuffle
        self.conv_first = nn.Conv2d(3 * shuffle**2, features, 3, padding=1)
        self.body = nn.Sequential(*(Block(features, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(features, features, 3, padding=1)
        for i in range(ups):
            setattr(self, f"conv_up{i + 1}", nn.Conv2d(features, features, 3, padding=1))
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)

    def forward(self, x):
        if self.shuffle > 1:
            x = F.pixel_unshuffle(x, self.shuffle)
        x = self.conv_first(x)
        x = x + self.conv_body(self.body(x))
        for i in range(self.ups):
            x = F.leaky_relu(getattr(self, f"conv_up{i + 1}")(F.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), 0.2))


def esrgan(name):
    """The name of a tensor in the release of ESRGAN."""
    for ours, theirs in (
        ("conv_body", "trunk_conv"), ("body.", "RRDB_trunk."), (".rdb", ".RDB"), ("conv_up", "upconv"), ("conv_hr", "HRconv"),
    ):
        name = name.replace(ours, theirs)
    return name


def older(blocks, ups):
    """What renames a tensor to its name before that release."""

    def rename(name):
        layer, _, kind = name.rpartition(".")
        table = {"conv_first": "model.0", "conv_body": f"model.1.sub.{blocks}"}
        table |= {f"conv_up{i + 1}": f"model.{3 * i + 3}" for i in range(ups)}
        table |= {"conv_hr": f"model.{3 * ups + 2}", "conv_last": f"model.{3 * ups + 4}"}
        if layer in table:
            return f"{table[layer]}.{kind}"
        return "model.1.sub." + layer.removeprefix("body.").replace("rdb", "RDB") + ".0." + kind

    return rename


def save_safetensors(path, tensors):
    header, data = {}, b""
    for name, x in tensors.items():
        raw = x.contiguous().numpy().astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def main():
    torch.manual_seed(4)
    picture = torch.rand(1, 3, 4, 8)
    outputs = {"picture": picture[0].permute(1, 2, 0)}
    cases = [
        ("compact_x4.pth", Compact(6, 2, 4), None, "params"),
        ("compact_x2.safetensors", Compact(8, 1, 2), None, ""),
        ("rrdb_x4.pth", RRDB(4, 1, 1, 2, 1), None, "params_ema"),
        ("rrdb_x2.safetensors", RRDB(4, 1, 1, 2, 2), None, ""),
        ("rrdb_x1.safetensors", RRDB(4, 1, 1, 2, 4), None, "params_ema"),
        ("esrgan_x4.safetensors", RRDB(4, 1, 1, 2, 1), esrgan, ""),
        ("old_x4.pth", RRDB(4, 1, 1, 2, 1), older(1, 2), ""),
        ("old_x2.safetensors", RRDB(4, 1, 2, 1, 1), older(2, 1), ""),
        ("old_x1.safetensors", RRDB(4, 1, 1, 0, 1), older(1, 0), ""),
    ]
    for name, net, rename, key in cases:
        for p in net.parameters():
            nn.init.normal_(p, 0, 1 / max(1, p[0].numel()) ** 0.5 if p.dim() > 1 else 0.2)
        last = net.body[-1] if isinstance(net, Compact) else net.conv_last
        nn.init.constant_(last.bias, 0.0 if isinstance(net, Compact) else 0.5)
        with torch.no_grad():
            outputs[name] = net(picture)[0].clamp(0, 1).permute(1, 2, 0)
        cut = ((outputs[name] == 0) | (outputs[name] == 1)).float().mean()
        print(f"{name}: {tuple(outputs[name].shape)}, spread {outputs[name].std():.3f}, {cut:.0%} cut")
        tensors = {(rename or str)(n): p.detach() for n, p in net.state_dict().items()}
        if name.endswith(".pth"):
            torch.save({key: tensors} if key else tensors, name)
        else:
            save_safetensors(name, {f"{key}.{n}" if key else n: p for n, p in tensors.items()})
    save_safetensors("golden.safetensors", outputs)


if __name__ == "__main__":
    main()
