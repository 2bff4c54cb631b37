"""Byte-level BPE (Sennrich et al. 2016; bytes as in GPT-2): trainer, encoder, and the tokenizer.json of `tokenizers`."""

import collections
import heapq
import json

import regex

BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
HEADER, HEADER_END, EOT, PAD = "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|pad|>"
SPECIALS = (BOS, EOS, HEADER, HEADER_END, EOT, PAD)

# Every Han character and Chinese mark is a piece of its own, so that the network can count syllables.
CHINESE_MARKS = "，。！？；：、《》「」“”…"
PATTERN = (
    rf"\p{{Han}}|[{CHINESE_MARKS}]"
    r"|'(?:[sdmt]|ll|ve|re)| ?\p{Latin}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+|\p{L}"
)

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def byte_alphabet():
    """GPT-2's printable stand-in for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {byte: chr(byte) for byte in printable}
    table.update({byte: chr(256 + index) for index, byte in enumerate(others)})
    return table


ALPHABET = byte_alphabet()
BYTES = {letter: byte for byte, letter in ALPHABET.items()}


def letters(text):
    return "".join(ALPHABET[byte] for byte in text.encode())


def character_merges(characters):
    """Merges that make each character one piece, prefix by prefix, most frequent first."""
    merges = {}
    for character in characters:
        spelled = letters(character)
        for end in range(1, len(spelled)):
            merges.setdefault((spelled[:end], spelled[end]))
    return list(merges)


def learn_merges(counts, merges, size):
    """Extends merges to size pairs, learned greedily from pre-token counts."""
    words, weights = [], []
    for word, count in counts.items():
        words.append(apply_merges(list(letters(word)), {pair: rank for rank, pair in enumerate(merges)}))
        weights.append(count)
    pairs, places = collections.Counter(), collections.defaultdict(set)
    for index, word in enumerate(words):
        for pair in zip(word, word[1:]):
            pairs[pair] += weights[index]
            places[pair].add(index)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    merges = list(merges)
    while len(merges) < size:
        count, pair = heapq.heappop(heap)
        if -count != pairs[pair]:  # stale: the count changed since it was pushed
            if pairs[pair] > 0:
                heapq.heappush(heap, (-pairs[pair], pair))
            continue
        merges.append(pair)
        for index in places.pop(pair):
            before = words[index]
            after = join(before, pair)
            for old in zip(before, before[1:]):
                pairs[old] -= weights[index]
            for new in zip(after, after[1:]):
                if pairs[new] <= 0 or index not in places[new]:
                    places[new].add(index)
                pairs[new] += weights[index]
                if pair[0] + pair[1] in new:
                    heapq.heappush(heap, (-pairs[new], new))
            words[index] = after
        pairs[pair] = 0
    return merges


def join(pieces, pair):
    out, index = [], 0
    while index < len(pieces):
        if index + 1 < len(pieces) and (pieces[index], pieces[index + 1]) == pair:
            out.append(pieces[index] + pieces[index + 1])
            index += 2
        else:
            out.append(pieces[index])
            index += 1
    return out


def apply_merges(pieces, ranks):
    while len(pieces) > 1:
        best = min(zip(pieces, pieces[1:]), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        pieces = join(pieces, best)
    return pieces


class Tokenizer:
    """Encodes and decodes with the merges and vocabulary of a tokenizer.json."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            model = json.load(file)
        self.vocab = model["model"]["vocab"]
        self.ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(model["model"]["merges"])}
        self.special = {token["content"]: token["id"] for token in model["added_tokens"]}
        self.pieces = {index: piece for piece, index in self.vocab.items()}
        self.pattern = regex.compile(PATTERN)
        self.cache = {}
        self.bos, self.eos, self.eot, self.pad = (self.special[name] for name in (BOS, EOS, EOT, PAD))

    def encode(self, text):
        """Ids of text, special tokens not recognised and none added."""
        out = []
        for word in self.pattern.findall(text):
            ids = self.cache.get(word)
            if ids is None:
                ids = [self.vocab[piece] for piece in apply_merges(list(letters(word)), self.ranks)]
                self.cache[word] = ids
            out += ids
        return out

    def has_rare_han(self, text):
        """Whether a Han character of text has no piece of its own."""
        return any(regex.match(r"\p{Han}", letter) and len(self.encode(letter)) > 1 for letter in set(text))

    def header(self, role):
        special = self.special
        return [special[HEADER], *self.encode(role), special[HEADER_END], *self.encode("\n\n")]

    def chat(self, messages):
        """Ids of a chat of (role, content), ready for the assistant's answer."""
        out = [self.bos]
        for role, content in messages:
            out += [*self.header(role), *self.encode(content.strip()), self.eot]
        return out + self.header("assistant")

    def decode(self, ids):
        """Text of ids, special tokens left out."""
        spelled = "".join(self.pieces.get(index, "") for index in ids if index not in self.special.values())
        return bytes(BYTES[letter] for letter in spelled).decode("utf-8", "replace")


def tokenizer_json(merges):
    """The tokenizer.json document of merges, with the special tokens after the learned pieces."""
    vocab = {letter: index for index, letter in enumerate(ALPHABET[byte] for byte in range(256))}
    for first, second in merges:
        vocab.setdefault(first + second, len(vocab))
    added = [
        {
            "id": len(vocab) + index,
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for index, name in enumerate(SPECIALS)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}
    bos = {"SpecialToken": {"id": BOS, "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                bos,
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": BOS, "type_id": 1}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {BOS: {"id": BOS, "ids": [added[0]["id"]], "tokens": [BOS]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [f"{first} {second}" for first, second in merges],
        },
    }
