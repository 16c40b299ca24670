"""Lines are cut into the ids that the 2020 reference gives, but for differences that are listed.

Expected: tokenizer_parity.json, written by make_tokenizer_parity.py, which also compares whole
texts. The vocabulary and the lines are made again here.
"""

import json
from pathlib import Path

import pytest

from tests.golden import make_tokenizer_parity as reference

EXPECTED = json.loads(Path(__file__).with_name("tokenizer_parity.json").read_text())
# Tokenizer -> the lines that are cut otherwise, all of them on purpose.
DIFFERENT: dict[str, set[str]] = {
    # The reference takes a special token written out in a text for the token itself.
    "bert": {"[MASK] 在 [SEP] 文 中 [UNK]", "[MASK]在文中"},
    "char": set(),
    # The reference makes an unknown token of nothing between two blanks, and of an empty line.
    "space": {"", "   ", "a  b   c"},
}


@pytest.mark.parametrize("name", reference.TOKENIZERS)
def test_ids_are_the_references(name: str) -> None:
    lines = reference.golden_lines()
    found = reference.ours(name, reference.golden_vocabulary(), lines)
    assert len(lines) == len(EXPECTED[name]) == len(reference.ODD_LINES) + reference.REVIEWS
    different = {
        line
        for line, ours, theirs in zip(lines, found, EXPECTED[name], strict=True)
        if ours != theirs
    }
    assert different == DIFFERENT[name]
