"""Writes the bundle, a diffusers StableDiffusionPipeline folder in bfloat16, from the averaged weights of a run, and the
golden numbers that Helicon's tests compare with."""

import argparse
import hashlib
import json
import os

import torch

import diffusion
import model
import tokenizer
import train
import unet_stage
import vae
import weights

PIPELINE = {
    "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.31.0", "feature_extractor": [None, None],
    "image_encoder": [None, None], "safety_checker": [None, None], "requires_safety_checker": False,
    "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderTiny"],
}  # fmt: skip


PARTS = ("text_encoder/model", "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model")
GOLDEN_PROMPTS = ("a red apple on a blue background", "一只猫，扁平风格")


def token(content):
    return {"__type": "AddedToken", "content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


def write(folder, name, value):
    os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def rounded(tensor):
    return [float(f"{value:.7g}") for value in tensor.flatten().tolist()]


@torch.no_grad()
def golden(bundle, coder, scale):
    """What the bundle computes in float32, without guidance and with it; latents and pictures are [channels, rows, columns]."""
    parts = [weights.read(os.path.join(bundle, name + ".safetensors")) for name in PARTS]
    network, autoencoder = model.Stickers(), vae.AutoencoderTiny()
    network.text_encoder.load_state_dict(parts[0])
    network.unet.load_state_dict(parts[1])
    autoencoder.load_state_dict(parts[2])
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    blank, cases = torch.tensor([coder.pad("")]), []
    for prompt in GOLDEN_PROMPTS:
        ids = torch.tensor([coder.pad(prompt)])
        states = network.text_encoder(ids, torch.float32)
        latents = diffusion.ddim(network, ids, blank, noise, 4, 3.0, torch.float32)
        picture = autoencoder.decode(latents / scale, torch.float32)
        cases.append({
            "prompt": prompt, "ids": ids[0].tolist(), "states": rounded(states[0, :, :8]),
            "velocities": {str(step): rounded(network.unet(noise, torch.tensor([step]), states)) for step in (999, 500, 20)},
            "latents": rounded(latents), "picture": rounded(picture[0, :, ::8, ::8]),
        })  # fmt: skip
    digests = {}
    for name in PARTS:
        with open(os.path.join(bundle, name + ".safetensors"), "rb") as file:
            digests[name] = hashlib.sha256(file.read()).hexdigest()
    return {"sha256": digests, "dtype": "float32 from BF16 weights", "states": "first 8 of 256 channels of each token",
            "latents": "4 steps of DDIM, trailing, guidance 3", "picture": "every eighth row and column, -1…1, not clipped",
            "noise": rounded(noise), "cases": cases}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="the folder of the training run")
    parser.add_argument("--bundle", required=True, help="the folder to write")
    parser.add_argument("--golden", help="where to write the golden numbers")
    options = parser.parse_args()
    coder, bundle = tokenizer.load(options.out), options.bundle
    start, end = token(tokenizer.START), token(tokenizer.END)
    settings = {"add_prefix_space": False, "bos_token": start, "eos_token": end, "unk_token": end, "pad_token": tokenizer.END,
                "do_lower_case": True, "errors": "replace", "model_max_length": tokenizer.LENGTH, "tokenizer_class": "CLIPTokenizer"}  # fmt: skip
    write(bundle, "model_index.json", PIPELINE)
    write(bundle, "generation_config.json", {"num_inference_steps": 20, "guidance_scale": 3.0})
    write(bundle, "scheduler/scheduler_config.json", diffusion.SCHEDULER)
    write(bundle, "tokenizer/tokenizer_config.json", settings)
    write(bundle, "tokenizer/special_tokens_map.json", {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": tokenizer.END})
    coder.save(os.path.join(bundle, "tokenizer"))
    write(bundle, "text_encoder/config.json", {**model.TEXT, "torch_dtype": "bfloat16"})
    write(bundle, "unet/config.json", model.UNET)
    write(bundle, "vae/config.json", {**vae.CONFIG, "scaling_factor": unet_stage.scale_of(options.out)})
    both = weights.read(os.path.join(options.out, "unet-average.safetensors"))
    parts = (
        {name[13:]: value for name, value in both.items() if name.startswith("text_encoder.")},
        {name[5:]: value for name, value in both.items() if name.startswith("unet.")},
        train.load_vae(options).state_dict(),
    )
    for name, tensors in zip(PARTS, parts):
        os.makedirs(os.path.dirname(os.path.join(bundle, name)), exist_ok=True)
        weights.write(os.path.join(bundle, name + ".safetensors"), tensors)
        print(name, os.path.getsize(os.path.join(bundle, name + ".safetensors")))
    if options.golden:
        os.makedirs(os.path.dirname(options.golden), exist_ok=True)
        with open(options.golden, "w", encoding="utf-8") as file:
            json.dump(golden(bundle, coder, unet_stage.scale_of(options.out)), file, ensure_ascii=False)
            file.write("\n")


if __name__ == "__main__":
    main()
