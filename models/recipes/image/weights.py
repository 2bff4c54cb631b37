"""Reads and writes safetensors files (https://github.com/huggingface/safetensors) with torch alone."""

import json
import os
import struct

import numpy
import torch

TYPES = {"F32": (torch.float32, numpy.float32), "BF16": (torch.bfloat16, numpy.int16)}


def read(path):
    """Tensors by name, as float32."""
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        body = file.read()
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        kind, raw = TYPES[entry["dtype"]]
        start, end = entry["data_offsets"]
        values = torch.from_numpy(numpy.frombuffer(body[start:end], raw).copy()).reshape(entry["shape"])
        tensors[name] = (values.view(kind) if kind == torch.bfloat16 else values).float()
    return tensors


def bundle(folder):
    """Text encoder and UNet of a bundle that export.py wrote, by their names in model.Stickers."""
    parts = {"text_encoder": "model", "unet": "diffusion_pytorch_model"}
    read_all = {part: read(os.path.join(folder, part, name + ".safetensors")) for part, name in parts.items()}
    return {f"{part}.{name}": value for part, tensors in read_all.items() for name, value in tensors.items()}


def write(path, tensors):
    """Writes tensors rounded to bfloat16, in the order of their names."""
    header, parts, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, tensor in sorted(tensors.items()):
        part = tensor.detach().to(torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [offset, offset + len(part)]}
        parts.append(part)
        offset += len(part)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for part in parts:
            file.write(part)
