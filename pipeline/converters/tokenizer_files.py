"""Tokenizers as the library `transformers` reads them: tokenizer.json, tokenizer_config.json."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from pipeline.errors import ConfigError, DataError
from pipeline.strict import read_json
from pipeline.text.tokenizers import MAX_WORD_LENGTH
from pipeline.text.vocabulary import (
    SPECIAL_TOKENS,
    Vocabulary,
    build_vocabulary,
    read_vocabulary,
)

TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
FILES = frozenset({TOKENIZER, SETTINGS})
MAX_BYTES = 64 << 20


def build_fast_tokenizer(name: str, vocabulary: Vocabulary, lowercase: bool) -> Tokenizer:
    """Return a tokenizer of the library `tokenizers` that gives our ids, with [CLS] and [SEP].

    Differs from ours: special tokens written out in a text are taken as such.
    Raises ConfigError for `word`, whose segmenter the library does not have.
    """
    ids, unknown = vocabulary.ids, "[UNK]"
    if name == "word":
        raise ConfigError(
            "tokenizer: word; Hugging Face has no jieba, so the model would read other words"
        )
    if name == "bert":
        tokenizer = Tokenizer(
            models.WordPiece(ids, unk_token=unknown, max_input_chars_per_word=MAX_WORD_LENGTH)
        )
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
    else:
        tokenizer = Tokenizer(models.WordLevel(ids, unk_token=unknown))
        tokenizer.normalizer = normalizers.Strip()
        pattern, behaviour = (Regex(r"[\s\S]"), "isolated") if name == "char" else (" ", "removed")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, behaviour)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def write_tokenizer(
    folder: Path, name: str, vocabulary: Vocabulary, lowercase: bool, max_positions: int
) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    build_fast_tokenizer(name, vocabulary, lowercase).save(str(folder / TOKENIZER))
    settings: dict[str, Any] = {
        "tokenizer_class": "BertTokenizer" if name == "bert" else "PreTrainedTokenizerFast",
        "model_max_length": max_positions,
        "clean_up_tokenization_spaces": False,
    }
    if name == "bert":
        settings |= {"do_lower_case": lowercase, "strip_accents": None}
        settings |= {"tokenize_chinese_chars": True}
    roles = ("pad", "unk", "cls", "sep", "mask")
    tokens = zip(roles, SPECIAL_TOKENS, strict=True)
    settings |= {f"{role}_token": token for role, token in tokens}
    text = json.dumps(settings, indent=2) + "\n"
    (folder / SETTINGS).write_text(text, encoding="utf-8")


def read_lowercase(folder: Path) -> bool:
    """Return whether a folder's BERT tokenizer lower-cases; true where it does not say.

    Raises ConfigError for tokenizers that are not BERT's.
    """
    settings, fast = (_read(folder / name) for name in (SETTINGS, TOKENIZER))
    kind = fast.get("model", {}).get("type", "WordPiece")
    if kind != "WordPiece":
        raise ConfigError(f"{folder / TOKENIZER}: model {kind!r}; only WordPiece (BERT) is read")
    normalizer = fast.get("normalizer") or {}
    lowercase = settings.get("do_lower_case", normalizer.get("lowercase", True))
    fixed = {"tokenize_chinese_chars": (True,), "strip_accents": (None, lowercase)}
    for key, values in fixed.items():
        if (found := settings.get(key, values[0])) not in values:
            raise ConfigError(f"{folder / SETTINGS}: {key}: {found}; our tokenizer bert differs")
    return bool(lowercase)


def find_folder_vocabulary(folder: Path) -> Vocabulary | None:
    """Return the vocabulary in vocab.txt, or else in tokenizer.json; None if neither has one."""
    if (folder / "vocab.txt").exists():
        return read_vocabulary(folder / "vocab.txt")
    path = folder / TOKENIZER
    ids = _read(path).get("model", {}).get("vocab")
    if not isinstance(ids, dict):
        return None
    tokens = {index: token for token, index in ids.items()}
    if sorted(tokens) != list(range(len(ids))):
        raise DataError(f"{path}: its ids are not 0 to {len(ids) - 1}, each once")
    return build_vocabulary([tokens[index] for index in range(len(ids))], str(path))


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path}: {path.stat().st_size} bytes; at most {MAX_BYTES}")
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{path}: not an object")
    return value
