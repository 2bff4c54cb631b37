"""CLIP's tokenizer (Radford et al. 2021): lower-cased byte-level BPE whose words end in </w>; vocab.json and merges.txt."""

import collections
import json
import os

import regex

START, END = "<|startoftext|>", "<|endoftext|>"
WORD = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", regex.IGNORECASE)
LENGTH = 48  # ids of a prompt with start, end and padding


def byte_names():
    """The printable character that stands for each byte, as in GPT-2."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    names, extra = {byte: chr(byte) for byte in plain}, 0
    for byte in range(256):
        if byte not in names:
            names[byte] = chr(256 + extra)
            extra += 1
    order = plain + [byte for byte in range(256) if byte not in plain]
    return {byte: names[byte] for byte in order}


BYTES = byte_names()


def split(text):
    """Words of a text, each a tuple of symbols, the last with </w>."""
    for word in WORD.findall(" ".join(text.lower().split())):
        symbols = [BYTES[byte] for byte in word.encode()]
        symbols[-1] += "</w>"
        yield tuple(symbols)


def joined(symbols, pair):
    """symbols with every occurrence of pair made one."""
    out, i = [], 0
    while i < len(symbols):
        if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == pair:
            out.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out


class Tokenizer:
    def __init__(self, merges):
        self.merges = merges
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        names = list(BYTES.values())
        pieces = names + [name + "</w>" for name in names] + ["".join(pair) for pair in merges] + [START, END]
        self.vocab = {piece: number for number, piece in enumerate(pieces)}
        self.start, self.end = self.vocab[START], self.vocab[END]
        self.known = {}

    def word(self, symbols):
        found = self.known.get(symbols)
        if found is None:
            parts = list(symbols)
            while len(parts) > 1:
                best = min(zip(parts, parts[1:]), key=lambda pair: self.ranks.get(pair, 1 << 30))
                if best not in self.ranks:
                    break
                parts = joined(parts, best)
            found = self.known[symbols] = [self.vocab[part] for part in parts]
        return found

    def encode(self, text):
        """Ids without start and end."""
        return [number for symbols in split(text) for number in self.word(symbols)]

    def pad(self, text, length=LENGTH):
        """Exactly length ids: start, at most length-2 of the text, then end to the end, as CLIP pads."""
        ids = [self.start] + self.encode(text)[: length - 2]
        return ids + [self.end] * (length - len(ids))

    def save(self, folder):
        with open(os.path.join(folder, "vocab.json"), "w", encoding="utf-8") as file:
            json.dump(self.vocab, file, ensure_ascii=False)
        with open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as file:
            file.write("#version: 0.2\n" + "".join(" ".join(pair) + "\n" for pair in self.merges))


def load(folder):
    with open(os.path.join(folder, "merges.txt"), encoding="utf-8") as file:
        return Tokenizer([tuple(line.split()) for line in file.read().splitlines()[1:]])


def train(corpus, size):
    """A tokenizer of size pieces: the most frequent pair of symbols is merged until there are enough."""
    counts = collections.Counter(symbols for text in corpus for symbols in split(text))
    spelled = [(list(symbols), count) for symbols, count in sorted(counts.items())]
    pairs, where = collections.Counter(), collections.defaultdict(set)
    for number, (symbols, count) in enumerate(spelled):
        for pair in zip(symbols, symbols[1:]):
            pairs[pair] += count
            where[pair].add(number)
    merges = []
    while len(merges) < size - 514 and pairs:
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        for number in sorted(where.pop(best)):
            symbols, count = spelled[number]
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] -= count
                if pairs[pair] <= 0:
                    del pairs[pair]
            symbols = joined(symbols, best)
            spelled[number] = symbols, count
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += count
                where[pair].add(number)
        pairs.pop(best, None)
    return Tokenizer(merges)
