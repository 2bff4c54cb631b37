"""Reads the pictures with their captions, holds some out, packs them and trains the tokenizer.

Writes into OUT: stickers.npy uint8 [N, 128, 128, 4] and tiles.npy uint8 [M, 32, 32, 4] (RGBA, not premultiplied),
entries.json with one caption for each picture, textures.json (tiles that fill a background),
vocab.json and merges.txt.
"""

import argparse
import csv
import hashlib
import json
import os
import re

import numpy
from PIL import Image

import tokenizer

STYLES = ("noto", "blob", "fluent3d", "fluentflat", "twemoji")
# Tiles: folder → caption, {} being the file's name; folders of mere parts of figures are left out.
TILES = {
    "dngn": "{}", "dngn/altars": "altar of {}", "dngn/doors": "{}", "dngn/gateways": "{}", "dngn/statues": "{}",
    "dngn/traps": "{} trap", "dngn/trees": "{}", "effect": "{} effect", "item/amulet": "{} amulet",
    "item/armour": "{}", "item/armour/headgear": "{}", "item/armour/shields": "{}", "item/book": "{} book",
    "item/food": "{}", "item/misc": "{}", "item/misc/runes": "{}", "item/potion": "{} potion",
    "item/ring": "{} ring", "item/rod": "{}", "item/scroll": "{} scroll", "item/staff": "{}", "item/wand": "{} wand",
    "item/weapon": "{}", "item/weapon/ranged": "{}", "mon": "{}", "mon/abyss": "{}", "mon/amorphous": "{}",
    "mon/animals": "{}", "mon/aquatic": "{}", "mon/demons": "{}", "mon/demonspawn": "{} demonspawn", "mon/dragons": "{}",
    "mon/eyes": "{}", "mon/fungi_plants": "{}", "mon/holy": "{}", "mon/nonliving": "{}", "mon/spriggan": "{}",
    "mon/undead": "{}", "mon/undead/skeletons": "{}", "mon/undead/spectrals": "{}", "mon/undead/zombies": "{}",
    "mon/undead/simulacra": "{}", "mon/unique": "{}", "mon/vault": "{}", "player/felids": "{}", "player/transform": "{}",
}  # fmt: skip
TEXTURES = {
    "dngn/floor/grass": ("grass", "草地"), "dngn/floor": ("{} floor", "地面"), "dngn/wall": ("{} wall", "墙"),
    "dngn/water": ("water", "水面"),
}  # fmt: skip


def held_out(thing, style):
    """Whether the pair belongs to the tenth that training never sees."""
    return int.from_bytes(hashlib.sha256(f"{thing}/{style}".encode()).digest()[:4], "big") % 10 == 0


def words(stem):
    """A file's name as words: "i-blood_2" → "blood"."""
    stem = re.sub(r"^(i-|misc_|urand_|spwpn_)", "", stem)
    stem = re.sub(r"(?<=\D)\d+", "", stem)
    return re.sub(r"[\s_-]+", " ", stem).strip()


def dominant_hue(picture):
    """(hue in turns, how much the colours agree, 0…1) of the saturated part of an RGBA picture."""
    small = Image.fromarray(picture).convert("RGB").resize((32, 32), Image.BOX)
    alpha = numpy.asarray(Image.fromarray(picture[..., 3]).resize((32, 32), Image.BOX), numpy.float32) / 255
    h, s, v = (numpy.asarray(channel, numpy.float32) / 255 for channel in small.convert("HSV").split())
    weight = alpha * s * v * (alpha > 0.5)
    if weight.sum() < 0.2 * alpha.sum() or weight.sum() < 5:
        return 0.0, 0.0
    mean = (weight * numpy.exp(2j * numpy.pi * h)).sum() / weight.sum()
    return float(numpy.angle(mean) / (2 * numpy.pi) % 1), float(abs(mean))


def read_stickers(folder):
    pictures, entries = [], []
    with open(os.path.join(folder, "captions.tsv"), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    for style in STYLES:
        for row in rows:
            path = os.path.join(folder, style, row["code"] + ".png")
            if not os.path.exists(path):
                continue
            picture = numpy.asarray(Image.open(path).convert("RGBA"))
            assert picture.shape == (128, 128, 4), path
            hue, agreement = dominant_hue(picture)
            entries.append({
                "kind": "sticker", "index": len(pictures), "thing": row["code"], "style": style,
                "name": row["name_en"], "zh": row["name_zh"],
                "keywords": [word for word in row["keywords_en"].split("|") if word],
                "keywords_zh": [word for word in row["keywords_zh"].split("|") if word],
                "hue": hue, "agreement": agreement, "held": held_out(row["code"], style),
            })  # fmt: skip
            pictures.append(picture)
    return numpy.stack(pictures), entries


def read_tiles(folder):
    pictures, entries, textures = [], [], []
    for where, name in sorted({**TILES, **TEXTURES}.items()):
        for file in sorted(os.listdir(os.path.join(folder, where))):
            if not file.endswith(".png"):
                continue
            picture = numpy.asarray(Image.open(os.path.join(folder, where, file)).convert("RGBA"))
            if picture.shape != (32, 32, 4):
                continue
            cover = (picture[..., 3] > 127).mean()
            text = words(file[:-4])
            if where in TEXTURES:
                if cover == 1:
                    label = TEXTURES[where][0].format(re.sub(r" (floor|wall|[nsew]{1,2})\b", "", text))
                    textures.append({"index": len(pictures), "name": label, "zh": TEXTURES[where][1]})
                    pictures.append(picture)
                continue
            if cover < 0.06:
                continue
            noun = name.replace("{}", "").strip()
            label = text if noun in text else name.format(text)
            entries.append({
                "kind": "tile", "index": len(pictures), "thing": "tile " + label, "style": "pixel", "name": label,
                "zh": "", "keywords": [], "keywords_zh": [], "hue": 0.0, "agreement": 0.0,
                "held": held_out(f"{where}/{file}", "tile"),
            })  # fmt: skip
            pictures.append(picture)
    return numpy.stack(pictures), entries, textures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder with stickers/ and tiles/")
    parser.add_argument("--out", required=True)
    parser.add_argument("--vocabulary", type=int, default=2560)
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    stickers, entries = read_stickers(os.path.join(options.data, "stickers"))
    tiles, more, textures = read_tiles(os.path.join(options.data, "tiles"))
    entries += more
    numpy.save(os.path.join(options.out, "stickers.npy"), stickers)
    numpy.save(os.path.join(options.out, "tiles.npy"), tiles)
    with open(os.path.join(options.out, "entries.json"), "w", encoding="utf-8") as file:
        json.dump(entries, file, ensure_ascii=False, indent=0)
    with open(os.path.join(options.out, "textures.json"), "w", encoding="utf-8") as file:
        json.dump(textures, file, ensure_ascii=False, indent=0)
    held = sum(entry["held"] for entry in entries)
    print(f"{len(stickers)} stickers, {len(tiles)} tiles, {len(entries)} captions, {held} held out, {len(textures)} textures")

    import compose  # needs the files above

    book = compose.Book(options.out)
    corpus = []
    for number in range(60000):
        spec = book.spec(0, number)
        corpus.append(book.prompt(spec, f"corpus {number}"))
    for entry in entries:
        corpus += [entry["name"], entry["zh"]] + entry["keywords"] + entry["keywords_zh"]
    coder = tokenizer.train(corpus, options.vocabulary)
    coder.save(options.out)
    lengths = sorted(len(coder.encode(text)) + 2 for text in corpus[:20000])
    print(f"vocabulary {len(coder.vocab)}, ids of a prompt: median {lengths[10000]}, 99 % {lengths[19800]}, longest {lengths[-1]}")


if __name__ == "__main__":
    main()
