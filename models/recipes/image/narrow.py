"""Training pictures of few things, each pair of thing and style often and always drawn the same: at one size and in the
middle unless the prompt says otherwise. A small network learns shapes from these many times sooner than from compose.Book's.
"""

import os
import random

import compose

SHARES = {"noto": 1, "fluent3d": 1, "fluentflat": 1, "twemoji": 1, "blob": 0.4}
PIXEL, TURNED, TWO = 0.03, 0.12, 0.05
OTHER_WORDS = 0.4  # of the names that have some


def read_things(path):
    """Group of each thing by code point, of a file with lines "group: thing thing …"."""
    with open(path, encoding="utf-8") as file:
        lines = [line.split(":") for line in file if not line.startswith("#")]
    return {thing: group.strip() for group, names in lines for thing in names.split()}


def read_aliases():
    """Other words for things by code point: (English ones, Chinese ones)."""
    found = {}
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "aliases.txt"), encoding="utf-8") as file:
        for line in file:
            if not line.startswith("#"):
                thing, words = line.split(":")
                words = [word.strip() for word in words.split("|")]
                found[thing] = [word for word in words if word.isascii()], [word for word in words if not word.isascii()]
    return found


def entries(book, chosen):
    """The book's stickers of chosen things, without blobs."""
    return [entry for entry in book.sticker_entries if entry["thing"] in chosen and entry["style"] != "blob"]


def within(spec, chosen):
    """Whether all of the spec's things are among the chosen, and none is a blob."""
    return all(thing["entry"]["thing"] in chosen and thing["style"] != "blob" for thing in spec["things"])


class Book(compose.Book):
    def __init__(self, folder, things, held=False):
        super().__init__(folder, held)
        self.chinese_share, self.keyword_share = 0.2, 0.03
        self.aliases, self.other_words = read_aliases(), 0.0
        self.by_thing = {}
        for entry in self.sticker_entries:
            if entry["thing"] in things:
                self.by_thing.setdefault(entry["thing"], []).append(entry)
        self.names = sorted(self.by_thing)

    def thing(self, draw):
        entries = self.by_thing[draw.choice(self.names)]
        entry = draw.choices(entries, [SHARES[entry["style"]] for entry in entries])[0]
        style = entry["style"]
        if draw.random() < PIXEL and style in ("noto", "twemoji", "fluentflat") and compose.hash_held(entry["thing"], "pixel") == self.held:
            style = "pixel"
        thing = {"entry": entry, "style": style, "colour": None, "turn": 0.0, "outline": draw.random() < 0.02 and style != "pixel", "mirror": False, "tilt": 0}  # fmt: skip
        if entry["agreement"] > 0.75 and draw.random() < TURNED:
            nearest = min(compose.HUES, key=lambda hue: abs((entry["hue"] * 360 - hue[2] + 180) % 360 - 180))
            goal = draw.choice([hue for hue in compose.HUES if hue is not nearest])
            thing["colour"], thing["turn"] = goal, goal[2] / 360 - entry["hue"]
        return thing

    def background(self, draw):
        choice = draw.random()
        if choice < 0.52:
            return {"kind": "white", "said": draw.random() < 0.15}
        one, other = draw.sample(compose.COLOURS, 2)
        if choice < 0.88:
            return {"kind": "plain", "colour": one, "rgb": one[2]}
        if choice < 0.96:
            return {"kind": "gradient", "colours": (one, other), "rgb": (one[2], other[2]), "way": draw.choice(list(compose.WAYS))}
        if choice < 0.98:
            return {"kind": "pattern", "pattern": draw.choice(list(compose.PATTERNS)), "colours": (one, other), "rgb": (one[2], other[2]), "step": draw.choice((16, 32))}  # fmt: skip
        return {"kind": "texture", "texture": draw.choice(self.textures), "scale": draw.choice((2, 4))}

    def spec(self, seed, number):
        draw = random.Random(f"narrow {seed} {number} {self.held}")
        spec = {"things": [self.thing(draw)], "relation": None, "size": "normal", "place": None,
                "background": self.background(draw), "grow": 0.94, "shift": (0, 0)}  # fmt: skip
        choice = draw.random()
        if choice < TWO:
            other = self.thing(draw)
            while other["entry"]["thing"] == spec["things"][0]["entry"]["thing"]:
                other = self.thing(draw)
            spec["things"].append(other)
            spec["relation"] = "beside" if draw.random() < 0.65 else "above"
        elif choice < TWO + 0.06:
            spec["size"] = draw.choice(("small", "tiny"))
            if draw.random() < 0.7:
                spec["place"] = draw.choice(list(compose.PLACES))
        elif choice < TWO + 0.08:
            spec["size"] = "huge"
        return spec

    def prompt(self, spec, wording):
        draw, things = random.Random(f"words {wording}"), []
        for thing in spec["things"]:
            entry = thing["entry"]
            english, chinese = self.aliases.get(entry["thing"], ([], []))
            if draw.random() < self.other_words:
                entry = {**entry, "name": draw.choice(english or [entry["name"]]), "zh": draw.choice(chinese or [entry["zh"]])}
            things.append({**thing, "entry": entry})
        return super().prompt({**spec, "things": things}, wording)
