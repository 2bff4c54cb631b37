"""Teaches the text encoder and the pooled vector to tell things apart by their names before the UNet has use for it: the
pooled text of a prompt is classified by thing and style, while the states of all tokens stay near what they were, if there
is a UNet that reads them. Left to the UNet's loss, names stay a hundredth of what the states tell of a prompt."""

import os

import torch
import torch.nn.functional as F

import data
import model
import narrow
import train


def train_words(options):
    torch.set_num_threads(2)
    path = os.path.join(options.out, "unet.pt")
    network, before, saved = model.Stickers(), model.Stickers(), None
    if os.path.exists(path):
        saved = torch.load(path)
        network.load_state_dict(saved["average"])
        before.load_state_dict(saved["average"])
        torch.save(saved, os.path.join(options.out, "unet-before-words.pt"))
    pool = network.unet.add_embedding
    pool.load_state_dict(model.Stickers().unet.add_embedding.state_dict())  # begins anew
    book, coder = data.book_of(options.out, options.things), data.tokenizer.load(options.out)
    book.other_words = options.other_words
    numbers = {thing: place for place, thing in enumerate(book.names)}
    styles = list(data.compose.STYLES)
    thing_head, style_head = torch.nn.Linear(256, len(numbers), bias=False), torch.nn.Linear(256, len(styles))
    groups = [
        {"params": list(network.text_encoder.parameters()), "lr": 5e-4},
        {"params": [p for n, p in pool.named_parameters() if not n.startswith("norm2")], "lr": 2e-3},
        {"params": [*thing_head.parameters(), *style_head.parameters()], "lr": 1e-2},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)
    rates = [group["lr"] for group in groups]
    steps, batch = options.steps, options.batch or 96
    for step in range(steps):
        specs = []
        number = step * 4 * batch
        while len(specs) < batch:
            spec = book.spec(77, number)
            number += 1
            if not spec["relation"]:
                specs.append(spec)
        ids = torch.tensor([coder.pad(book.prompt(spec, f"words {step} {place}")) for place, spec in enumerate(specs)])
        things = torch.tensor([numbers[spec["things"][0]["entry"]["thing"]] for spec in specs])
        looks = torch.tensor([styles.index(spec["things"][0]["style"]) for spec in specs])
        states = network.text_encoder(ids)
        with torch.no_grad():
            old = before.text_encoder(ids).float()
        vector = pool(states).float()
        logits = 12 * F.linear(F.normalize(vector, dim=1), F.normalize(thing_head.weight, dim=1))
        drift = (states.float() - old).square().mean() / old.var((0, 1)).mean()
        named = F.cross_entropy(logits, things)
        loss = named + 0.2 * F.cross_entropy(style_head(vector), looks) + (drift if saved else 0)
        for group, rate in zip(groups, rates):
            group["lr"] = rate * min(1, (step + 1) / 20, max(0.05, (steps - step) / (0.4 * steps)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 19:
            right = (logits.argmax(1) == things).float().mean().item()
            print(f"words {step + 1} names {named.item():.3f} right {right:.2f} drift {drift.item():.4f}", flush=True)
    average = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    before = saved or {"steps": 0, "seconds": 0.0}
    torch.save({"network": network.state_dict(), "average": average, "steps": before["steps"], "seconds": before["seconds"]}, path)
