"""Cleans the data sets into items and trains the tokenizer.

Writes items.jsonl (one item a line: source, held, title, author, form, text)
and tokenizer.json to --out. An item is held out of training by a hash of its
text. Poems with a character too rare for a piece of its own are left out, so
that the network never learns to write half a character.
"""

import argparse
import collections
import glob
import gzip
import hashlib
import json
import os
import re

import regex

import prompts
import tokenizer

HAN_PIECES = 4300
VOCABULARY = 8192
HELD = 100  # one item in so many is held out

# Children's tales and adventures; the others of the set are written for adults.
BOOKS = (
    "aesop_fables", "anna-sewell", "beatrix-potter", "e-nesbit_five", "e-nesbit_the-railway", "eleanor-h-porter",
    "frances-hodgson-burnett_a-little", "frances-hodgson-burnett_the-secret", "hugh-lofting_the-story",
    "hugh-lofting_the-voyages", "j-m-barrie", "jacob-grimm", "kenneth-grahame", "l-frank-baum_ozma",
    "l-frank-baum_the-marvelous", "l-frank-baum_the-wonderful", "lewis-carroll_alices", "lewis-carroll_through",
    "robert-louis-stevenson", "rudyard-kipling_just", "rudyard-kipling_the-jungle",
)  # fmt: skip
TALES = ("aesop_fables", "beatrix-potter", "jacob-grimm", "rudyard-kipling_just")  # every heading is a tale's title

STRAIGHT = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "–": "-", "\u00a0": " ", "«": '"', "»": '"'})
FORMS = {(4, 5): "五绝", (4, 7): "七绝", (8, 5): "五律", (8, 7): "七律"}


def held_out(text):
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % HELD == 0


def item(source, text, title="", author="", form=""):
    return {
        "source": source, "held": held_out(text), "title": title, "author": author, "form": form, "text": text,
    }  # fmt: skip


def tiny_stories(root):
    with open(os.path.join(root, "tinystories", "tinystories.txt"), encoding="utf-8") as file:
        for story in file.read().split("<|endoftext|>"):
            story = story.translate(STRAIGHT)
            lines = [" ".join(line.split()) for line in story.split("\n")]
            text = "\n".join(line for line in lines if line)
            if len(text) > 100:
                yield item("tinystories", text)


def story_books(root):
    """English and Chinese picture books: pages joined to paragraphs, licence and credits left out."""
    for path in sorted(glob.glob(os.path.join(root, "storybooks", "*", "*", "*.md"))):
        language = os.path.basename(os.path.dirname(path))
        if language not in ("en", "zh"):
            continue
        with open(path, encoding="utf-8") as file:
            pages = re.split(r"^##\s*$", file.read(), flags=re.M)
        title = pages[0].strip().lstrip("# ").strip()
        kept = [page for page in pages[1:] if "License:" not in page]
        glue = "" if language == "zh" else " "
        lines = [glue.join(line.strip() for line in page.split("\n") if line.strip()) for page in kept]
        text = "\n".join(" ".join(line.split()) for line in lines if line)
        if language == "en":
            text, title = text.translate(STRAIGHT), title.translate(STRAIGHT)
        if len(text) > 60 and not re.search(r"[\[\]{}|#*]|https?:", text):
            yield item("storybooks" if language == "en" else "storybooks-zh", text, title)


def is_heading(line):
    """A short line in title case without a mark at its end."""
    if len(line) >= 70 or re.search(r"[.,;:!?\"')—-]$", line) or line.startswith(("'", '"')):
        return False
    return all(not word[0].islower() for word in line.split() if len(word) > 4 or word == line.split()[0])


def electronic_books(root):
    """Chapters of novels, and tales under their titles."""
    for path in sorted(glob.glob(os.path.join(root, "standard-ebooks", "*.txt"))):
        name = os.path.basename(path)
        if not name.startswith(BOOKS):
            continue
        with open(path, encoding="utf-8") as file:
            lines = [" ".join(line.split()) for line in file.read().translate(STRAIGHT).split("\n")]
        title, body = "", []
        for line in [line for line in lines if line] + ["The End"]:
            if not is_heading(line):
                body.append(line)
                continue
            if sum(map(len, body)) > 300 and title != "Introduction":
                yield item("ebooks", "\n".join(body), title if name.startswith(TALES) else "")
                body = []
            if not re.fullmatch(r"[IVXLC]+", line):
                title, body = line, []


def poem_form(text):
    lines = [line for line in re.split(r"[，。！？；：、\n]", text) if line]
    lengths = {len(line) for line in lines}
    if len(lengths) != 1:
        return "古诗"
    length = lengths.pop()
    if length in (5, 7) and len(lines) > 8:
        return "五古" if length == 5 else "七古"
    return FORMS.get((len(lines), length), "古诗")


def poems(root):
    seen = set()
    for source in ("tang", "song", "ci"):
        with gzip.open(os.path.join(root, "chinese-poetry", source + ".jsonl.gz"), "rt", encoding="utf-8") as file:
            for line in file:
                poem = json.loads(line)
                text = "\n".join(paragraph.strip() for paragraph in poem["paragraphs"] if paragraph.strip())
                if not 20 <= len(text) <= 400 or re.search(r"[□■○?{}\[\]()（）<>A-Za-z0-9]", text) or text in seen:
                    continue
                seen.add(text)
                title = re.sub(r"\s+.*$", "", poem["title"].strip())
                title = re.sub(r"[（(].*$", "", title).split("・")[0]
                title = re.sub(r"[二三四五六七八九十百]+[首章绝]$", "", title)  # one poem of a series
                form = "词" if source == "ci" else poem_form(text)
                if title == "失调名":
                    title = ""
                yield item(source, text, title, poem["author"].strip(), form)


def train_tokenizer(items):
    han, words = collections.Counter(), collections.Counter()
    pattern = regex.compile(tokenizer.PATTERN)
    for entry in items:
        if entry["held"]:
            continue
        if entry["source"] in ("tinystories", "storybooks", "ebooks"):
            words.update(pattern.findall(entry["text"] + "\n" + entry["title"]))
        else:
            weight = 12 if entry["source"] == "storybooks-zh" else 1  # few, but the only modern prose
            for character in entry["text"] + entry["title"] + entry["author"]:
                han[character] += weight
    for text in prompts.chinese_texts():
        for character in text:
            han[character] += 100
    words["\n\n"] += 10 * len(items)  # follows every header of a chat
    for role in ("user", "assistant", "system"):
        words[role] += 10 * len(items)
    chosen = [character for character, _ in han.most_common() if regex.match(r"\p{Han}", character)][:HAN_PIECES]
    merges = tokenizer.character_merges(list(tokenizer.CHINESE_MARKS) + chosen)
    size = VOCABULARY - 256 - len(tokenizer.SPECIALS)
    return tokenizer.tokenizer_json(tokenizer.learn_merges(words, merges, size))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder with tinystories, storybooks, …")
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    items = [*tiny_stories(options.data), *story_books(options.data), *electronic_books(options.data)]
    items += poems(options.data)
    document = train_tokenizer(items)
    with open(os.path.join(options.out, "tokenizer.json"), "w", encoding="utf-8") as file:
        json.dump(document, file, ensure_ascii=False, indent=2)
    coder = tokenizer.Tokenizer(os.path.join(options.out, "tokenizer.json"))
    items = [entry for entry in items if not entry["form"] or not coder.has_rare_han(entry["text"])]
    with open(os.path.join(options.out, "items.jsonl"), "w", encoding="utf-8") as file:
        for entry in items:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    totals = collections.defaultdict(lambda: [0, 0, 0, 0])
    for entry in items:
        total = totals[entry["source"]]
        total[0] += 1
        total[1] += entry["held"]
        total[2] += len(entry["text"])
        total[3] += len(coder.encode(entry["text"]))
    for source, total in totals.items():
        print(source, "items %d held %d characters %d tokens %d" % tuple(total))


if __name__ == "__main__":
    main()
