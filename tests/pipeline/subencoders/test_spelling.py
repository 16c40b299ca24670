"""Which characters a token has."""

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.subencoders import LONGEST_WORD, Characters, characters_of, spell
from pipeline.text.vocabulary import Vocabulary
from tests.pipeline.networks import CHARACTERS, compose

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def vocabulary(*tokens: str) -> Vocabulary:
    return Vocabulary(list(tokens), {token: place for place, token in enumerate(tokens)}, "")


def test_characters_are_those_that_occur() -> None:
    ids, size = spell(vocabulary("ba", "c", "中文a"))
    assert ids.tolist() == [[2, 1, 0], [3, 0, 0], [4, 5, 1]]
    assert size == 6


def test_characters_of_a_vocabulary_of_their_own() -> None:
    ids, size = spell(vocabulary("ab", "xa"), vocabulary(*SPECIAL, "a", "b"))
    assert ids.tolist() == [[5, 6], [1, 5]]
    assert size == 7


def test_long_words_are_cut() -> None:
    ids, _ = spell(vocabulary("a", "b" * 1000))
    assert ids.shape == (2, LONGEST_WORD)


def test_padding_must_come_first() -> None:
    characters = vocabulary("a", *SPECIAL)
    with pytest.raises(ConfigError, match=r"^subencoder: \[PAD\] is token 1 of the characters"):
        spell(vocabulary("a"), characters)


def test_the_table_comes_back_from_the_weights() -> None:
    model = compose("lstm", embedding="word", subencoder="avg")
    found = characters_of(model.state_dict())
    assert found is not None
    assert torch.equal(found.ids, CHARACTERS.ids)
    assert found.vocab_size == CHARACTERS.vocab_size
    assert characters_of(compose("lstm").state_dict()) is None
    assert isinstance(found, Characters)
