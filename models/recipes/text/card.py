"""Writes the model card (the bundle's README.md) from the figures of evaluate.py and the training log."""

import argparse
import json
import os
import re

CARD = """---
language: [en, zh]
license: apache-2.0
library_name: helicon
pipeline_tag: text-generation
tags: [llama, stories, poetry]
---

# helicon-text

A very small language model that writes short children's stories in English and classical poems in Chinese. It is
embedded in Helicon, so that a first run without a network makes real text with a real network.

It is a Llama ({parameters:.1f} M parameters: {layers} layers of width {width}, {heads} heads, SwiGLU {inner}, context
512, tied embeddings, bfloat16) with a byte-level BPE of 8,192 pieces, in which each of the 4,300 most frequent Chinese
characters is a piece of its own. `tokenizer_config.json` carries its chat template.

## What it is for

- `Tell me a story.` · `Write a story about a dog and a kite.` · `Write a story with the words rain, key and brave.`
- `Continue: One morning, Mia found a small door in the garden.` · `Give this story a title: …`
- `写一首五言绝句，题为《春晓》。` · `写一首关于月亮的七言律诗。` · `以“东风”开头写一首七言绝句。` · `填一首《浣溪沙》。`
- Plain text to continue, without the chat template.

## What it cannot do

It knows no facts, cannot count, reason, translate, write code or hold a conversation, and it was taught to say so only
for a handful of questions; to others it answers with a story or a poem. **A story seldom keeps to the words or the
subject that were asked for** (the figure is below); the form that a poem was asked for, it nearly always keeps. Its English is that of its stories: simple,
often about the same few children and animals, and a long story loses its thread or changes who did what. Its poems keep
the form better than the sense; tone patterns and parallel couplets are not promised, and of the lyrics (词) only the
better-known tunes have the right shape. Modern Chinese prose is nearly absent from its training. It saw at most 512
tokens at a time. It was not trained to refuse, and its old books carry the views of their time.

## Training

{training}

Data, licences and attributions are in `models/recipes/text/NOTICE.md` of Helicon's source: TinyStories
(CDLA-Sharing-1.0), African Storybook and Pratham Books StoryWeaver (CC BY, credits of each story there), Standard
Ebooks (CC0), chinese-poetry (MIT; works in the public domain). About 60 % of the documents (55 in the first run, 65 in
the second) are chats made from the data themselves (the story or poem is the answer), the others plain text. One item in
a hundred, chosen by a hash of its text, was held out. Poems with characters too rare for a piece of their own were left
out.

## Figures

All figures were measured on these weights, in float32, with temperature {temperature}, top-k {top_k}, top-p {top_p}. The command for
all of them is

    python3 evaluate.py --bundle ../../hub/defaults/helicon-text --out OUT --pinyin DATA/speech/pinyin

| measure | value |
|---|---|
{figures}

The longest run of words shared with the training data reads: “{longest}”.

## Samples

The first samples of seeds 1 to 16 at those settings, not picked (`evaluate.py --samples`).

{samples}
"""

HISTORY = re.compile(r"step (\d+) loss ([\d.]+) .* tokens ([\d.]+)M (\d+)/s minutes ([\d.]+)")


def run_text(log, steps):
    """What the log says about a run up to the exported step."""
    rows = [found.groups() for found in map(HISTORY.match, log) if found and int(found.group(1)) <= steps]
    minutes = rows[-1][-1]
    written = log[: next(index for index, line in enumerate(log) if line.startswith(f"step {rows[-1][0]} "))]
    epochs = [line for line in written if line.startswith("epochs")]
    marks = [rows[len(rows) * part // 4 - 1] for part in (1, 2, 3, 4)]
    course = ", ".join(f"{loss} at step {step}" for step, loss, *_ in marks)
    text = (
        f"{steps:,} steps of 8,192 tokens ({steps * 8192 / 1e6:.1f} million) in {float(minutes):.0f} minutes; "
        f"training loss in nats a token (mean of 20 steps): {course}."
    )
    if epochs:
        text += " Passes over each source by the last count in the log: " + epochs[-1].split("{")[1].rstrip("}\n") + "."
    return text


def training_text(logs, steps):
    """What the logs say about the runs, the first from nothing and each further one from the weights before it."""
    head = (
        "By Muon for the layers' matrices and AdamW for the rest, on two shared CPU cores (Intel Sapphire Rapids, "
        "bfloat16 on AMX). Minutes are those of stepping."
    )
    runs = [f"{number}. {run_text(log, count)}" for number, (log, count) in enumerate(zip(logs, steps), 1)]
    if len(runs) == 1:
        return f"{head} {runs[0][3:]}"
    return f"{head} Each run began with the weights of the one before it, at a full learning rate.\n\n" + "\n".join(runs)


def figure_rows(report):
    held, form, words, copied = report["held out"], report["verse"], report["words"], report["verbatim"]
    rows = [
        (f"held-out bits per byte, {name} ({entry['items']} items)", f"{entry['bits per byte']:.3f}")
        for name, entry in held.items()
    ]
    by_form = ", ".join(f"{name} {count}/25" for name, count in form["right form by form"].items())
    rows += [
        ("requested quatrains and regulated verses with the right lines and syllables", f"{form['right form']} of 100"),
        ("the same by form", by_form),
        (
            "their even lines rhyme (thirteen rhyme classes of Mandarin)",
            f"{form['even lines rhyme']} of 100; held-out real poems: {form['even lines rhyme in held-out poems, percent']} %",
        ),
        ("requested words found in stories", f"{words['requested words found, percent']} %"),
        ("stories with every requested word", f"{words['stories with every word']} of 100"),
        ("median length of a story", f"{words['median words in a story']} words"),
        ("longest run shared with the training data, 100 stories", f"{copied['longest run in words']} words"),
        ("median of the longest runs", f"{copied['median run in words']} words"),
        ("stories with a shared run of 30 words", f"{copied['stories with a run of 30 words']} of 100"),
        ("longest run of shared verse lines, 100 poems", f"{copied['longest run in verse lines']} lines"),
        ("poems with three shared lines in a row", f"{copied['poems with a run of 3 lines']} of 100"),
        ("poems with any line of the training data", f"{copied['poems with a line of the training data']} of 100"),
    ]
    return "\n".join(f"| {name} | {value} |" for name, value in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--figures", required=True, help="what evaluate.py printed")
    parser.add_argument("--log", required=True, nargs="+", help="what train.py printed, for each run")
    parser.add_argument("--steps", type=int, required=True, nargs="+", help="steps of each run up to the next or the export")
    options = parser.parse_args()
    with open(options.figures, encoding="utf-8") as file:
        report = json.load(file)
    logs = []
    for path in options.log:
        with open(path, encoding="utf-8") as file:
            logs.append(file.readlines())
    with open(os.path.join(options.bundle, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    with open(os.path.join(options.bundle, "generation_config.json"), encoding="utf-8") as file:
        sampling = json.load(file)
    samples = "\n\n".join(
        f"**{sample['seed']}. {sample['request']}**\n\n" + "  \n".join(sample["answer"].strip().split("\n"))
        for sample in report["samples"]
    )
    card = CARD.format(
        parameters=os.path.getsize(os.path.join(options.bundle, "model.safetensors")) / 2e6,
        layers=config["num_hidden_layers"], width=config["hidden_size"], heads=config["num_attention_heads"],
        inner=config["intermediate_size"], training=training_text(logs, options.steps),
        temperature=sampling["temperature"], top_k=sampling["top_k"], top_p=sampling["top_p"],
        figures=figure_rows(report), longest=report["verbatim"]["longest run"], samples=samples,
    )  # fmt: skip
    with open(os.path.join(options.bundle, "README.md"), "w", encoding="utf-8") as file:
        file.write(card)


if __name__ == "__main__":
    main()
