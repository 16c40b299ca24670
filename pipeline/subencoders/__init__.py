"""Characters of words to vectors, and the tables that tell which characters a word has."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.text.vocabulary import Vocabulary

LONGEST_WORD = 32
TABLE, ROWS = "subencoder.characters", "subencoder.embedding.weight"


class Characters(NamedTuple):
    """The characters of every token of a vocabulary, for a subencoder."""

    ids: Tensor
    """(V, S) int64, 0 behind the last character."""
    vocab_size: int
    """Size of the vocabulary of characters."""


def spell(vocabulary: Vocabulary, characters: Vocabulary | None = None) -> Characters:
    """Return the characters of every token, LONGEST_WORD at most.

    characters: which there are, [PAD] first; unknown ones are its [UNK]. Absent: all that occur in
    the tokens, in the order of their code points, from 1 on. Raises ConfigError.
    """
    tokens = [token[:LONGEST_WORD] for token in vocabulary.tokens]
    if characters is None:
        ids = {c: place for place, c in enumerate(sorted(set("".join(tokens))), 1)}
        unknown, size = 0, len(ids) + 1
    else:
        ids, unknown = characters.ids, characters.token_ids.unk
        size = len(characters.tokens)
        if characters.token_ids.pad != 0:
            raise ConfigError(
                f"subencoder: [PAD] is token {characters.token_ids.pad} of the characters; the "
                "first line must hold it"
            )
    table = np.zeros((len(tokens), max(map(len, tokens), default=0)), np.int64)
    for row, token in enumerate(tokens):
        table[row, : len(token)] = [ids.get(character, unknown) for character in token]
    return Characters(torch.from_numpy(table), size)


def characters_of(tensors: Mapping[str, Tensor]) -> Characters | None:
    """Return the table that stands in a model's tensors; None if it has no subencoder."""
    if TABLE not in tensors or ROWS not in tensors:
        return None
    return Characters(tensors[TABLE], len(tensors[ROWS]))
