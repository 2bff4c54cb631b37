"""Writes NOTICE.md: the data sets of helicon-text, their licences, and the credits that CC BY asks for."""

import argparse
import glob
import os
import re

import prepare

HEAD = """# Data of helicon-text

The weights were trained from nothing on the sets below. None of them is part of this repository.

| set | origin | licence |
|---|---|---|
| TinyStories (8,545 stories) | Ronen Eldan and Yuanzhi Li, 2023, huggingface.co/datasets/roneneldan/TinyStories | CDLA-Sharing-1.0, which puts no conditions on results such as models. The stories were written by GPT-3.5 and GPT-4 |
| African Storybook and Pratham Books StoryWeaver | africanstorybook.org, storyweaver.org.in, through github.com/global-asp (asp-source, pb-source, global-asp) | CC BY 3.0 or 4.0 by story, credits below; one story is in the public domain |
| Standard Ebooks: {books} books | github.com/standardebooks | CC0 1.0 editions of works in the public domain |
| chinese-poetry: Tang and Song poems, Song lyrics | github.com/chinese-poetry/chinese-poetry, commit 99ebbef | MIT, copyright (c) 2016 JackeyGao; the works are in the public domain |

Readings of characters used to measure rhyme: mozillazg/pinyin-data, MIT.

Books: {titles}.

## Credits of the story books

Title, then author of the text, adaptation and translation as the book names them. The texts were joined from pages to
paragraphs; pictures were not used.

"""


def credit(path):
    """One line of credits of a story book, or nothing where prepare.py does not use it."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    title = text.split("\n", 1)[0].lstrip("# ").strip()
    fields = dict(re.findall(r"^\* (\w+): *(.+)$", text, flags=re.M))
    names = [fields.get("Text", "unnamed")]
    for field, word in (("Adaptation", "adapted by"), ("Translation", "translated by")):
        if fields.get(field):
            names.append(f"{word} {fields[field]}")
    licence = fields.get("License", "").strip("[]")
    return f"- {title}: {'; '.join(names)} ({licence})"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--notice", required=True)
    options = parser.parse_args()
    books = [os.path.basename(path) for path in glob.glob(os.path.join(options.data, "standard-ebooks", "*.txt"))]
    used = sorted(name[:-4].replace("_", ", ").replace("-", " ") for name in books if name.startswith(prepare.BOOKS))
    with open(options.notice, "w", encoding="utf-8") as file:
        file.write(HEAD.format(books=len(used), titles="; ".join(used)))
        for language, heading in (("en", "English"), ("zh", "Chinese")):
            file.write(f"### {heading}\n\n")
            pattern = os.path.join(options.data, "storybooks", "*", language, "*.md")
            file.write("\n".join(sorted({credit(path) for path in glob.glob(pattern) if "README" not in path})) + "\n\n")


if __name__ == "__main__":
    main()
