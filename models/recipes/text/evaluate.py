"""Measures an exported bundle and prints the figures of its card as JSON.

Held-out bits per byte; the form and rhyme of 100 requested poems; requested
words in 100 stories; the longest verbatim run shared with the training data
over 200 samples; and the first samples of seeds 1 to 16.
"""

import argparse
import json
import math
import random
import re

import numpy
import torch

import data
import generate
import prompts
import verse

THEMES = ("春天", "明月", "秋天", "雪", "梅花", "送别", "思乡", "山", "江水", "夜晚", "柳树", "酒", "竹子")
SAMPLE_REQUESTS = (
    "Tell me a story.", "写一首七言绝句，题为《春晓》。", "Write a story about a dragon and a little boat.", "写一首关于月亮的五言绝句。",
    "Write a story with the words rain, key and brave.", "填一首《浣溪沙》。", "Write a short story about a fox.", "以《秋夜》为题，写一首五言律诗。",
    "Continue: One morning, Mia found a small door in the garden.", "以“东风”开头写一首七言绝句。", "Tell me a bedtime story about a bear.",
    "写一首关于送别的七言律诗。", 'Write a story called "The Lost Star".', "填一首《如梦令》，写春天。", "Who are you?", "Write a poem about snow.",
)  # fmt: skip


def held_out_bits(writer, folder):
    """Bits per byte in float32 over all held-out items, windows of 512 tokens, each window on its own."""
    formatter = data.Formatter(writer.coder, data.load_items(folder, held=True))
    groups = {"english stories": ("tinystories", "storybooks"), "ebooks": ("ebooks",), "chinese verse": data.POEMS}
    figures = {}
    for name, sources in groups.items():
        bits, size, items = 0.0, 0, 0
        for source in sources:
            inputs, labels, count = data.held_rows(formatter, source, limit=None)
            size += count
            items += len(formatter.items[source])
            for start in range(0, len(inputs), 8):
                part = labels[start : start + 8]
                tokens = (part >= 0).sum().item()
                with torch.no_grad():
                    loss = writer.network.loss(inputs[start : start + 8], part, torch.float32).item()
                bits += loss * tokens / math.log(2)
        figures[name] = {"bits per byte": round(bits / size, 3), "items": items, "bytes": size}
    return figures


def in_batches(writer, requests, seeds, rows=25):
    answers = []
    for start in range(0, len(requests), rows):
        answers += writer.chat(requests[start : start + rows], seeds[start : start + rows])
    return answers


def verse_forms(writer, rhymes, folder):
    """25 requests of each of four forms, about 13 themes and 12 held-out titles."""
    held = data.load_items(folder, held=True)
    titles = [poem["title"] for poem in held["tang"] + held["song"] if 2 <= len(poem["title"]) <= 6]
    requests, forms = [], []
    for index, form in enumerate(verse.FORMS):
        for number in range(25):
            forms.append(form)
            if number < len(THEMES):
                requests.append(f"写一首关于{THEMES[number]}的{form}。")
            else:
                requests.append(f"写一首{form}，题为《{titles[index * 12 + number - len(THEMES)]}》。")
    poems = in_batches(writer, requests, list(range(1000, 1100)))
    right = [verse.has_form(poem, form) for poem, form in zip(poems, forms)]
    rhymed = [verse.rhymes(poem, rhymes) for poem in poems]
    names = {short: name for name, short in zip(verse.FORMS, ("五绝", "七绝", "五律", "七律"))}
    real = [poem["text"] for source in ("tang", "song") for poem in held[source] if poem["form"] in names]
    figures = {
        "requests": len(poems),
        "right form": sum(right),
        "even lines rhyme": sum(rhymed),
        "right form by form": {
            form: sum(ok for ok, wanted in zip(right, forms) if wanted == form) for form in verse.FORMS
        },
        "even lines rhyme in held-out poems, percent": round(
            100 * sum(verse.rhymes(text, rhymes) for text in real) / len(real), 1
        ),
    }  # fmt: skip
    return figures, poems


def requested_words(writer, folder):
    """100 requests for stories with two or three words that a held-out story has."""
    maker = prompts.Maker(data.load_items(folder))
    stories = data.load_items(folder, held=True)["tinystories"]
    requests, wanted = [], []
    for index in range(100):
        draw = random.Random(index)
        text = stories[index % len(stories)]["text"]
        if index % 2:
            words = sorted(set(re.findall(r"\b[a-z]{3,}\b", text)) & maker.content)
            chosen = draw.sample(words, min(3, len(words)))
            requests.append(f"Write a story with the words {prompts.listing(chosen, 'and')}.")
        else:
            phrases = [p for p in dict.fromkeys(prompts.PHRASE.findall(text)) if p.split()[-1] in maker.content]
            chosen = [p.split()[-1] for p in draw.sample(phrases, min(2, len(phrases)))] or ["dragon", "boat"]
            spoken = [f"an {word}" if word[0] in "aeiou" else f"a {word}" for word in chosen]
            requests.append(f"Write a story about {prompts.listing(spoken, 'and')}.")
        wanted.append(chosen)
    answers = in_batches(writer, requests, list(range(2000, 2100)))
    found = [[bool(re.search(rf"\b{word}", text.lower())) for word in words] for words, text in zip(wanted, answers)]
    flat = [hit for hits in found for hit in hits]
    lengths = sorted(len(text.split()) for text in answers)
    figures = {
        "requests": len(answers),
        "stories with every word": sum(all(hits) for hits in found),
        "requested words found, percent": round(100 * sum(flat) / len(flat), 1),
        "median words in a story": lengths[len(lengths) // 2],
        "stories that end": sum(text.rstrip().endswith((".", "!", "?", '"')) for text in answers),
    }
    return figures, answers


class Overlap:
    """Finds the longest run of units that a sample shares with a corpus."""

    def __init__(self, texts, units, size):
        self.units, self.size = units, size
        self.numbers = {}
        flat = []
        for text in texts:
            flat += [self.numbers.setdefault(unit, len(self.numbers) + 1) for unit in units(text)] + [0]
        self.flat = numpy.array(flat + [0] * size, dtype=numpy.int64)
        self.keys = self.hash(self.flat)
        self.order = numpy.argsort(self.keys, kind="stable")
        self.keys = self.keys[self.order]

    def hash(self, values):
        total = numpy.zeros(len(values) - self.size + 1, dtype=numpy.uint64)
        for index in range(self.size):
            part = values[index : index + len(total)].astype(numpy.uint64)
            total = (total ^ part) * numpy.uint64(0x9E3779B97F4A7C15)
            total ^= total >> numpy.uint64(29)
        return total

    def longest(self, text):
        units = self.units(text)
        values = numpy.array([self.numbers.get(unit, -1) for unit in units], dtype=numpy.int64)
        if len(values) < self.size:
            return 0, ""
        best, place = 0, 0
        keys = self.hash(values)
        for start, (low, high) in enumerate(
            zip(numpy.searchsorted(self.keys, keys, "left"), numpy.searchsorted(self.keys, keys, "right"))
        ):
            for where in self.order[low:high]:
                length = 0
                while (
                    start + length < len(values)
                    and values[start + length] > 0
                    and self.flat[where + length] == values[start + length]
                ):
                    length += 1
                if length > best:
                    best, place = length, start
        return best, " ".join(units[place : place + best])


def english_words(text):
    return re.findall(r"[A-Za-z0-9']+", text.lower())


def verbatim(stories, poems, folder):
    """Longest runs of words, and of verse lines, that samples share with the training data."""
    items = data.load_items(folder)
    english = [entry["text"] for source in ("tinystories", "storybooks", "ebooks") for entry in items[source]]
    runs = [Overlap(english, english_words, 6)]
    runs = sorted((runs[0].longest(text) for text in stories), reverse=True)
    lines = Overlap([entry["text"] for source in data.POEMS for entry in items[source]], verse.lines, 1)
    shared = sorted((lines.longest(text) for text in poems), reverse=True)
    return {
        "stories": len(runs),
        "longest run in words": runs[0][0],
        "median run in words": runs[len(runs) // 2][0],
        "stories with a run of 30 words": sum(run[0] >= 30 for run in runs),
        "longest run": runs[0][1],
        "poems": len(shared),
        "longest run in verse lines": shared[0][0],
        "poems with a run of 3 lines": sum(run[0] >= 3 for run in shared),
        "poems with a line of the training data": sum(run[0] >= 1 for run in shared),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--out", required=True, help="the folder prepare.py wrote")
    parser.add_argument("--pinyin", required=True, help="the folder with pinyin.txt")
    parser.add_argument("--samples", action="store_true", help="only the 16 samples")
    options = parser.parse_args()
    writer = generate.Writer(options.bundle)
    report = {"samples": []}
    for seed, request in enumerate(SAMPLE_REQUESTS, 1):
        (answer,) = writer.chat([request], [seed])
        report["samples"].append({"seed": seed, "request": request, "answer": answer})
    if not options.samples:
        report["held out"] = held_out_bits(writer, options.out)
        report["verse"], poems = verse_forms(writer, verse.read_rhymes(options.pinyin), options.out)
        report["words"], stories = requested_words(writer, options.out)
        report["verbatim"] = verbatim(stories, poems, options.out)
    print(json.dumps(report, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
