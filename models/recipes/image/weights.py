"""Reads and writes safetensors files (https://github.com/huggingface/safetensors) with torch alone."""

import json
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
