"""Small vocabularies and files for the tests of texts."""

from pathlib import Path

from pipeline.text.vocabulary import SPECIAL_TOKENS, Vocabulary, build_vocabulary

WORDS = ["我", "爱", "北", "京", "，", "。", "a", "b", "##b", "##c", "love", "!", "##京", "e", "é"]


def vocabulary(*tokens: str) -> Vocabulary:
    """Return the special tokens and some more, or the words above."""
    return build_vocabulary([*SPECIAL_TOKENS, *(tokens or WORDS)])


def written(path: Path, content: str | bytes) -> Path:
    """Write a file and return its path."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path
