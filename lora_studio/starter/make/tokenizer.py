"""Trains the starter's CLIP tokenizer: byte-pair merges over the captions' words and a list of English words.

    python -m lora_studio.starter.make.tokenizer ICONS.zip WORDS OUT

`WORDS` is a text file with one English word per line (Debian's `wamerican` has a public-domain one). The
vocabulary has every byte, so any text can be encoded: an unknown word becomes several tokens, at worst letters.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import sys
import zipfile
from collections import Counter
from pathlib import Path

from .names import BACKGROUNDS, STYLES, caption

VOCABULARY = 5000
"""Tokens in all, the two special ones included."""

LENGTH = 77
"""Tokens per caption, start and end included (`model_max_length`)."""

START, END = "<|startoftext|>", "<|endoftext|>"


def alphabet() -> list[str]:
    """The 256 characters that CLIP writes the bytes 0..255 as, in CLIP's order."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(rest))]


def caption_words(icons: Path, seed: int = 7) -> Counter:
    """Words of many captions of every subject in the zip of icons, with how often each is seen."""
    draw = random.Random(seed)
    subjects = sorted({entry["subject"] for entry in json.loads(zipfile.ZipFile(icons).read("index.json"))})
    texts = (
        caption(s, draw.choice([*STYLES.values()]), draw.choice([None, *BACKGROUNDS]), draw)
        for s in subjects
        for _ in range(40)
    )
    return Counter(word for text in texts for word in re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]+", text.lower()))


def merges(words: Counter, count: int) -> list[tuple[str, str]]:
    """The first `count` byte-pair merges of `words`, most frequent pair first, words ended by `</w>`."""
    pieces: dict[str, tuple[str, ...]] = {w: (*w[:-1], w[-1] + "</w>") for w in words}
    pairs: Counter = Counter()
    where: dict[tuple[str, str], set[str]] = {}
    for word, parts in pieces.items():
        for pair in itertools.pairwise(parts):
            pairs[pair] += words[word]
            where.setdefault(pair, set()).add(word)
    out = []
    while len(out) < count:
        best = max(pairs, key=lambda p: (pairs[p], p))
        out.append(best)
        for word in list(where[best]):
            old = pieces[word]
            new = pieces[word] = _join(old, best)
            for pair in itertools.pairwise(old):
                pairs[pair] -= words[word]
                where[pair].discard(word)
            for pair in itertools.pairwise(new):
                pairs[pair] += words[word]
                where.setdefault(pair, set()).add(word)
        del pairs[best]
    return out


def _join(parts: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """`parts` with every occurrence of `pair` made one piece."""
    out: list[str] = []
    i = 0
    while i < len(parts):
        if parts[i : i + 2] == pair:
            out.append(parts[i] + parts[i + 1])
            i += 2
        else:
            out.append(parts[i])
            i += 1
    return tuple(out)


def write(found: list[tuple[str, str]], out: Path) -> None:
    """Writes the folder that `CLIPTokenizer.from_pretrained` reads."""
    letters = alphabet()
    tokens = dict.fromkeys(letters + [c + "</w>" for c in letters] + ["".join(m) for m in found] + [START, END])
    out.mkdir(parents=True, exist_ok=True)
    (out / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False))
    (out / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in found))
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": LENGTH,
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
    }
    (out / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    (out / "tokenizer_config.json").write_text(json.dumps(config | special, indent=2) + "\n")


def main(icons: Path, word_list: Path, out: Path) -> None:
    """Trains on the captions (their counts) and on the word list (each word twice), and writes the folder."""
    words = caption_words(icons)
    listed = re.findall(r"^[a-z]{2,12}$", word_list.read_text().lower(), re.MULTILINE)
    words.update(dict.fromkeys(listed, 2))
    write(merges(words, VOCABULARY - 2 * 256 - 2), out)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
