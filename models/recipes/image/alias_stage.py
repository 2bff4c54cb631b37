"""Teaches a trained text encoder other words (aliases.txt): a prompt with them must give the pooled vector and the late states
that the usual names give. The UNet stays as it is. Changes OUT/unet-average.safetensors; for weights that saw no such prompts."""

import os

import torch

import data
import model
import narrow
import weights


def train_aliases(options):
    torch.set_num_threads(2)
    path = os.path.join(options.out, "unet-average.safetensors")
    teacher, network = model.Stickers(), model.Stickers()
    teacher.load_state_dict(weights.read(path))
    network.load_state_dict(weights.read(path))
    book, coder, chosen = data.book_of(options.out, options.things), data.tokenizer.load(options.out), narrow.read_things(options.focus)
    book.keyword_share = 0
    table = network.text_encoder.text_model.embeddings.token_embedding.weight
    rest = [parameter for parameter in network.text_encoder.parameters() if parameter is not table]
    optimizer = torch.optim.AdamW([{"params": [table]}, {"params": rest}], 0, (0.9, 0.98), weight_decay=0)
    steps, number = options.steps, 1000000 * options.seed
    for step in range(steps):
        usual, others = [], []
        while len(usual) < (options.batch or 96):
            spec, number = book.spec(55, number), number + 1
            if spec["relation"] is None and narrow.within(spec, chosen):
                for ids, share in ((usual, 0.0), (others, 0.85)):
                    book.other_words = share
                    ids.append(coder.pad(book.prompt(spec, number)))
        usual, others = torch.tensor(usual), torch.tensor(others)
        same = (usual == others).all(1)
        with torch.no_grad():
            goal = teacher.text_encoder(usual)
            pooled = teacher.unet.add_embedding(goal).float()
            goal = goal.float()
        states = network.text_encoder(others)
        off = (network.unet.add_embedding(states).float() - pooled).square().mean(1) / pooled.var()
        states = states.float()
        late = (states[:, -16:] - goal[:, -16:]).square().mean((1, 2)) / goal[:, -16:].var(0).mean()
        kept = ((states - goal).square().mean((1, 2)) / goal.var(0).mean())[same].mean()
        for group, rate in zip(optimizer.param_groups, (4e-3, 7e-4)):
            group["lr"] = rate * min(1, (step + 1) / 10, max(0.05, (steps - step) / (0.5 * steps)))
        optimizer.zero_grad()
        (off.mean() + late.mean() + kept).backward()
        optimizer.step()
        if step % 20 == 0 or step == steps - 1:
            print(f"aliases {step + 1} pooled {off[~same].mean():.3f} late {late[~same].mean():.3f}; the usual: {off[same].mean():.3f} {kept:.3f}", flush=True)
    os.replace(path, os.path.join(options.out, "unet-average-before-aliases.safetensors"))
    weights.write(path, dict(network.named_parameters()))
