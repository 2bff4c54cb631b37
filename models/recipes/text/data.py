"""The training stream: items become plain documents or chats, anew in every epoch, and are packed into rows.

Everything is drawn from generators seeded by (source, epoch, item), so a run is
repeatable; a Stream's state goes into the checkpoint, so it can also be resumed.
"""

import json
import os
import random
import re

import torch

import prompts
import tokenizer

# Share of the training tokens by source; "talk" is the hand-written small talk.
SHARES = {
    "tinystories": 0.46, "storybooks": 0.08, "storybooks-zh": 0.002, "ebooks": 0.08,
    "tang": 0.16, "song": 0.14, "ci": 0.08, "talk": 0.003,
}  # fmt: skip
ROW = 513  # ids of a row: 512 inputs and their successors
PLAIN = 0.35  # share of the items that are plain text, the others are chats
CANDIDATES = 48  # items to choose from when a row is filled
POEMS = ("tang", "song", "ci")


def load_items(folder, held=False):
    """Items by source."""
    items = {source: [] for source in SHARES}
    with open(os.path.join(folder, "items.jsonl"), encoding="utf-8") as file:
        for line in file:
            entry = json.loads(line)
            if entry["held"] == held:
                items[entry["source"]].append(entry)
    items["talk"] = [] if held else [{"source": "talk", "text": "", "pair": pair} for pair in prompts.TALK]
    return items


def pieces(text, limit, coder):
    """Text cut at line ends, or sentence ends, into parts of at most limit ids."""
    parts, part = [], []
    for line in text.split("\n"):
        ids = coder.encode(line)
        sentences = [line] if len(ids) <= limit else re.split(r"(?<=[.!?;]) ", line)
        for index, sentence in enumerate(sentences):
            last = index == len(sentences) - 1
            ids = coder.encode(sentence + ("\n" if last else " "))[:limit]
            if part and len(part) + len(ids) > limit:
                parts.append(part)
                part = []
            part = part + ids
    return parts + [part]


class Formatter:
    """Turns items into (ids, trained) pairs, trained telling which ids the loss counts."""

    def __init__(self, coder, items):
        self.coder = coder
        self.items = items
        self.maker = prompts.Maker(items)

    def plain(self, entry, draw):
        """Documents of an item as text to continue; long ones give several."""
        text = entry["text"]
        if entry["title"] and draw.random() < 0.5:
            if entry["source"] in POEMS:
                text = f"《{entry['title']}》\n{entry['author']}\n{text}"
            elif entry["source"] != "ebooks" or len(entry["title"]) > 2:
                text = f"{entry['title']}\n\n{text}"
        coder = self.coder
        if len(text) < 400:
            parts = [coder.encode(text)]
        else:
            parts = pieces(text, ROW - 3, coder)
            if parts[-1] and parts[-1][-1] == coder.encode("\n")[0]:
                parts[-1].pop()
        parts[0] = [coder.bos] + parts[0]
        parts[-1] = parts[-1] + [coder.eos]
        return [(ids, [True] * len(ids)) for ids in parts]

    def chat(self, turns):
        """One document of a chat of (role, content); the loss counts the assistant's words."""
        coder = self.coder
        ids, trained = [coder.bos], [False]
        for role, content in turns:
            head, body = coder.header(role), coder.encode(content.strip()) + [coder.eot]
            ids += head + body
            trained += [False] * len(head) + [role == "assistant"] * len(body)
        return ids, trained

    def documents(self, entry, draw):
        if entry["source"] == "talk":
            question, answer = entry["pair"]
            return [self.chat([("user", draw.choice(question)), ("assistant", draw.choice(answer))])]
        if draw.random() < PLAIN:
            return self.plain(entry, draw)
        turns = self.maker.turns(entry, draw)
        if turns is None:
            return self.plain(entry, draw)
        ids, trained = self.chat(turns)
        if len(ids) > ROW:
            return self.plain(entry, draw)
        if draw.random() < 0.3:  # a second request after the first answer
            more = self.maker.turns(draw.choice(self.items[entry["source"]]), draw, again=True)
            if more is not None:
                longer = self.chat([turn for turn in turns if turn[0] != "system"] + more)
                if len(longer[0]) <= ROW:
                    return [longer]
        return [(ids, trained)]


class Stream:
    """An endless, repeatable sequence of packed rows."""

    def __init__(self, formatter, seed=1):
        self.formatter = formatter
        self.seed = seed
        self.epoch = dict.fromkeys(SHARES, 0)
        self.position = dict.fromkeys(SHARES, 0)
        self.spent = dict.fromkeys(SHARES, 0)
        self.waiting = []
        self.orders = {}

    def state(self):
        """What a checkpoint must hold for load to go on from here; shares are counted anew, for they may have changed."""
        return {key: self.__dict__[key] for key in ("seed", "epoch", "position", "waiting")}

    def load(self, state):
        self.__dict__.update({key: state[key] for key in ("seed", "epoch", "position", "waiting")})

    def order(self, source):
        """The shuffled item numbers of the source's current epoch."""
        epoch, numbers = self.orders.get(source, (-1, None))
        if epoch != self.epoch[source]:
            epoch, numbers = self.epoch[source], list(range(len(self.formatter.items[source])))
            random.Random(f"{self.seed} {source} {epoch}").shuffle(numbers)
            self.orders[source] = epoch, numbers
        return numbers

    def pull(self):
        """Adds the documents of the item whose source lags most behind its share."""
        source = min(SHARES, key=lambda name: self.spent[name] / SHARES[name])
        items = self.formatter.items[source]
        epoch, position = self.epoch[source], self.position[source]
        draw = random.Random(f"{self.seed} {source} {epoch} {position}")
        found = self.formatter.documents(items[self.order(source)[position]], draw)
        self.waiting += found
        self.spent[source] += sum(len(ids) for ids, _ in found)
        self.position[source] += 1
        if self.position[source] == len(items):
            self.position[source], self.epoch[source] = 0, epoch + 1

    def row(self):
        """ids and labels of one row; a label of -1 is not counted."""
        ids, trained = [], []
        while True:
            while len(self.waiting) < CANDIDATES:
                self.pull()
            room = ROW - len(ids)
            fitting = [index for index, (document, _) in enumerate(self.waiting) if len(document) <= room]
            if not fitting:
                break
            # The oldest starts a row, the longest that fits goes on.
            best = fitting[0] if not ids else max(fitting, key=lambda index: len(self.waiting[index][0]))
            document, counted = self.waiting.pop(best)
            ids += document
            trained += counted
        blank = ROW - len(ids)
        ids += [self.formatter.coder.pad] * blank
        trained += [False] * blank
        return ids[:-1], [label if counted else -1 for label, counted in zip(ids[1:], trained[1:])]

    def batch(self, rows):
        pairs = [self.row() for _ in range(rows)]
        return torch.tensor([ids for ids, _ in pairs]), torch.tensor([labels for _, labels in pairs])


def held_rows(formatter, source, limit=40):
    """Rows of the held-out items of a source as plain text, one document a row, with the text's length in bytes."""
    rows, size = [], 0
    for entry in formatter.items[source][:limit]:
        ids = [formatter.coder.bos] + formatter.coder.encode(entry["text"])
        size += len(entry["text"].encode())
        for start in range(0, len(ids) - 1, ROW - 1):
            part = ids[start : start + ROW]
            blank = [formatter.coder.pad] * (ROW - len(part))
            rows.append((part + blank, [True] * len(part) + [False] * len(blank)))
    inputs = torch.tensor([ids[:-1] for ids, _ in rows])
    labels = torch.tensor([[i if t else -1 for i, t in zip(ids[1:], trained[1:])] for ids, trained in rows])
    return inputs, labels, size
