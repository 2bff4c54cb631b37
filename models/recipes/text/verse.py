"""The form of Chinese verse: lines, syllables, and rhyme in the thirteen rhyme classes of Mandarin (十三辙)."""

import os
import re
import unicodedata

FORMS = {"五言绝句": (4, 5), "七言绝句": (4, 7), "五言律诗": (8, 5), "七言律诗": (8, 7)}

CLASSES = {}
for number, finals in enumerate((
    "a ia ua", "o e uo", "ie ve ue", "u", "i v er", "ai uai", "ei uei ui", "ao iao", "ou iou iu",
    "an ian uan van", "en in uen un vn", "ang iang uang", "eng ing ueng ong iong",
)):  # fmt: skip
    CLASSES.update(dict.fromkeys(finals.split(), number))


def final(syllable):
    """The final of a pinyin syllable, its tone left out and ü written v."""
    letters = unicodedata.normalize("NFD", syllable.replace("ü", "v"))
    letters = re.sub(r"u\u0308", "v", letters)
    plain = "".join(letter for letter in letters if letter.isascii())
    found = re.fullmatch(r"(zh|ch|sh|[bpmfdtnlgkhjqxrzcsyw]?)([a-z]+)", plain)
    if not found:
        return ""
    initial, rest = found.groups()
    if rest.startswith("u") and (initial in ("j", "q", "x") or (initial == "y" and rest != "u")):
        rest = "v" + rest[1:]  # ju, yuan: written u, spoken ü
    if initial == "y" and rest == "u":
        rest = "v"
    return rest


def read_rhymes(folder):
    """The rhyme classes of each character, over all its readings in pinyin.txt."""
    rhymes = {}
    with open(os.path.join(folder, "pinyin.txt"), encoding="utf-8") as file:
        for line in file:
            found = re.match(r"U\+([0-9A-F]+): (\S+)", line)
            if found:
                classes = {CLASSES.get(final(reading)) for reading in found.group(2).split(",")} - {None}
                rhymes[chr(int(found.group(1), 16))] = classes
    return rhymes


def lines(text):
    return [line for line in re.split(r"[，。！？；：、\s]+", text.strip()) if line]


def has_form(text, form):
    """Whether text has the number of lines, and syllables in each, of form."""
    count, length = FORMS[form]
    found = lines(text)
    return len(found) == count and all(len(line) == length for line in found)


def rhymes(text, table):
    """Whether all even lines end in one rhyme class."""
    ends = [table.get(line[-1], set()) for line in lines(text)[1::2]]
    return len(ends) > 1 and bool(set.intersection(*ends))
