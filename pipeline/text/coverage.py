"""How well a vocabulary covers corpora: used entries, unknown tokens and what they are."""

from functools import partial
from typing import Any

import numpy as np

from pipeline.text.codepoints import code_points
from pipeline.text.corpus import Corpus
from pipeline.text.ledger import Ledger
from pipeline.text.tokenizers import Tokenizer
from pipeline.text.vocabulary import SPECIAL_TOKENS
from pipeline.text.workers import iter_parallel

_MAX_SAMPLE_BYTES = 16 << 20


def count_ids(corpus: Corpus, tokenizer: Tokenizer, parts: int, processes: int) -> np.ndarray:
    """Return how often each id stands for a piece of the corpora, (V,) int64."""
    count = partial(_count_part, corpus, tokenizer, parts)
    total = np.zeros(len(tokenizer.vocabulary.tokens), np.int64)
    for counts in iter_parallel(count, range(parts), processes):
        total += counts
    return total


def _count_part(corpus: Corpus, tokenizer: Tokenizer, parts: int, part: int) -> np.ndarray:
    total = np.zeros(len(tokenizer.vocabulary.tokens), np.int64)
    for block in corpus.iter_blocks(part, parts, Ledger()):
        total += np.bincount(tokenizer.encode_lines(block.text).values, minlength=len(total))
    return total


def describe_coverage(counts: np.ndarray, corpus: Corpus, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return tokens, coverage, unknown rate, unused entries and top unknown characters for JSON."""
    tokens, unknown = int(counts.sum()), int(counts[tokenizer.unknown])
    rate = unknown / max(1, tokens)
    return {
        "tokens": tokens,
        "unknown": unknown,
        "unknown_rate": round(rate, 6),
        "coverage": round(1 - rate, 6),
        "unused": int(np.count_nonzero(counts == 0)) - _count_unused_special(counts, tokenizer),
        "top_unknown": [list(pair) for pair in top_unknown(corpus, tokenizer)] if unknown else [],
    }


def _count_unused_special(counts: np.ndarray, tokenizer: Tokenizer) -> int:
    return sum(not counts[tokenizer.vocabulary.ids[token]] for token in SPECIAL_TOKENS)


def top_unknown(corpus: Corpus, tokenizer: Tokenizer, top: int = 10) -> list[tuple[str, int]]:
    """Return the most frequent characters without a token in the first 16 MiB, with counts.

    A character that only continues words (##) has a token.
    """
    found: dict[int, int] = {}
    seen = 0
    for block in corpus.iter_blocks(0, 1, Ledger()):
        codes, counts = np.unique(code_points(block.text), return_counts=True)
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            found[code] = found.get(code, 0) + count
        seen += len(block.raw)
        if seen > _MAX_SAMPLE_BYTES:
            break
    lists = tokenizer.encode([chr(code) for code in found])
    rows = np.repeat(np.arange(len(lists)), lists.lengths)[lists.values == tokenizer.unknown]
    pieces = tokenizer.vocabulary.ids
    unknown = [
        code
        for code in np.array(list(found))[np.unique(rows)].tolist()
        if f"##{chr(code).lower()}" not in pieces
    ]
    ranked = sorted(unknown, key=lambda code: (-found[code], code))[:top]
    return [(chr(code), found[code]) for code in ranked]
