"""The noise schedule (cosine, Nichol & Dhariwal 2021), v-prediction (Salimans & Ho 2022) and DDIM (Song et al. 2021) with guidance."""

import math

import torch

STEPS = 1000
SCHEDULER = {
    "_class_name": "DDIMScheduler", "_diffusers_version": "0.31.0", "num_train_timesteps": STEPS, "beta_start": 0.0001,
    "beta_end": 0.02, "beta_schedule": "squaredcos_cap_v2", "trained_betas": None, "clip_sample": False,
    "set_alpha_to_one": True, "steps_offset": 0, "prediction_type": "v_prediction", "thresholding": False,
    "timestep_spacing": "trailing", "rescale_betas_zero_snr": False,
}  # fmt: skip


def alphas():
    """The share of the picture's variance after each step, float32 [1000], as diffusers computes squaredcos_cap_v2."""

    def bar(t):
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - bar((i + 1) / STEPS) / bar(i / STEPS), 0.999) for i in range(STEPS)]
    return torch.cumprod(1 - torch.tensor(betas, dtype=torch.float32), 0)


ALPHAS = alphas()


def noisy(latents, noise, steps):
    """The noisy latents at steps and the velocity to predict."""
    a = ALPHAS.to(latents.device)[steps].sqrt()[:, None, None, None]
    b = (1 - a.square()).sqrt()
    return a * latents + b * noise, a * noise - b * latents


@torch.no_grad()
def ddim(network, ids, blank, noise, count=20, guidance=3.0, dtype=torch.bfloat16):
    """Latents after count steps (eta 0, trailing) for prompts ids [B, L]; blank [1, L] is the empty prompt. A guidance of 1
    is none."""
    context = network.text_encoder(ids if guidance == 1 else torch.cat((blank.expand_as(ids), ids)), dtype)
    x = noise
    steps = torch.arange(STEPS, 0, -STEPS / count).round().long() - 1
    for place, step in enumerate(steps.tolist()):
        now = ALPHAS[step]
        after = ALPHAS[steps[place + 1]] if place + 1 < len(steps) else torch.tensor(1.0)
        if guidance == 1:
            v = network.unet(x, torch.full((len(x),), step), context)
        else:
            without, told = network.unet(torch.cat((x, x)), torch.full((2 * len(x),), step), context).chunk(2)
            v = without + guidance * (told - without)
        start = now.sqrt() * x - (1 - now).sqrt() * v
        error = now.sqrt() * v + (1 - now).sqrt() * x
        x = after.sqrt() * start + (1 - after).sqrt() * error
    return x
