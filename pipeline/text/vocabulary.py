"""Vocabularies: one token a line, line number = id; special ids are looked up, never assumed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TokenIds:
    """What a model needs to know of a vocabulary: its size and its special ids."""

    vocab_size: int
    pad: int
    unk: int
    cls: int
    sep: int
    mask: int
