"""Samples from exported or training weights: python3 generate.py --bundle … --prompt "Tell me a story." --seed 1"""

import argparse
import json
import os

import torch

import model
import tokenizer
import weights

CONTEXT = 512


class Writer:
    """An exported bundle, ready to write."""

    def __init__(self, bundle):
        with open(os.path.join(bundle, "config.json"), encoding="utf-8") as file:
            fields = json.load(file)
        known = {key: fields[key] for key in model.Config.__dataclass_fields__}
        with open(os.path.join(bundle, "generation_config.json"), encoding="utf-8") as file:
            self.defaults = json.load(file)
        self.coder = tokenizer.Tokenizer(os.path.join(bundle, "tokenizer.json"))
        self.network = model.Llama(model.Config(**known))
        self.network.load_state_dict(weights.read(os.path.join(bundle, "model.safetensors")))
        self.network.freeze()

    def chat(self, requests, seeds, **changes):
        """Answers to single requests, each from its own seed."""
        prompts = [self.coder.chat([("user", request)]) for request in requests]
        return [self.coder.decode(ids) for ids in self.complete(prompts, seeds, **changes)]

    @torch.no_grad()
    def complete(self, prompts, seeds, **changes):
        """Ids that follow each prompt, without the end; rows of a batch do not influence one another."""
        settings = {**self.defaults, **changes}
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        width = max(map(len, prompts))
        padding = torch.tensor([width - len(prompt) for prompt in prompts])
        ids = torch.tensor([[self.coder.pad] * (width - len(prompt)) + prompt for prompt in prompts])
        limit = min(settings.get("max_new_tokens", CONTEXT), CONTEXT - width)
        caches = [model.Cache(padding, width + limit) for _ in self.network.model.layers]
        out = [[] for _ in prompts]
        unfinished = set(range(len(prompts)))
        for _ in range(limit):
            logits = self.network.logits(ids, caches=caches, last=True)[:, -1]
            chosen = pick(penalise(logits, out, settings), draws, settings)
            for row in sorted(unfinished):
                if chosen[row] in (self.coder.eos, self.coder.eot):
                    unfinished.discard(row)
                else:
                    out[row].append(chosen[row])
            if not unfinished:
                break
            ids = torch.tensor(chosen).unsqueeze(1)
        return out


def penalise(logits, before, settings):
    """Divides positive and multiplies negative logits of what was written before by the repetition penalty."""
    penalty = settings.get("repetition_penalty", 1.0)
    if penalty != 1.0:
        for row, ids in enumerate(before):
            seen = torch.tensor(sorted(set(ids)), dtype=torch.long)
            values = logits[row, seen]
            logits[row, seen] = torch.where(values > 0, values / penalty, values * penalty)
    return logits


def pick(logits, draws, settings):
    """One id a row by temperature, top-k and top-p, in that order, each row from its own generator."""
    if not settings.get("do_sample", True):
        return logits.argmax(-1).tolist()
    values, order = torch.topk(logits, settings["top_k"], -1)
    shares = torch.softmax(values.double() / settings["temperature"], -1)
    shares = shares * (shares.cumsum(-1) - shares < settings["top_p"])
    points = torch.stack([torch.rand((), generator=draw, dtype=torch.float64) for draw in draws])
    points = points.unsqueeze(1) * shares.sum(-1, keepdim=True)
    places = (shares.cumsum(-1) <= points).sum(-1, keepdim=True).clamp_max(settings["top_k"] - 1)
    return order.gather(1, places).squeeze(1).tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--prompt", action="append", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--temperature", type=float)
    options = parser.parse_args()
    changes = {} if options.temperature is None else {"temperature": options.temperature}
    writer = Writer(options.bundle)
    for prompt in options.prompt:
        (answer,) = writer.chat([prompt], [options.seed], **changes)
        print(f"> {prompt}\n{answer}\n")


if __name__ == "__main__":
    main()
