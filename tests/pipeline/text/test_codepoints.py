"""Look-ups by code point: what is learnt once, what blanks and invisible characters are."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text.codepoints import (
    RUN,
    SPACE,
    BertCutting,
    CodePointTable,
    code_points,
    count_invisible,
    find_runs,
    inner_spaces,
)


def test_a_table_asks_once_for_each_code_point():
    asked = []

    def values(characters):
        asked.extend(characters)
        return [ord(character) - ord("a") for character in characters]

    table = CodePointTable(values)
    assert table.look_up(code_points("abca\n")).tolist() == [0, 1, 2, 0, -2]
    assert table.look_up(code_points("db")).tolist() == [3, 1]
    assert asked == ["a", "b", "c", "d"]


def test_code_points_beyond_the_first_plane_and_broken_ones():
    assert code_points("a\U0001f600\ud800").tolist() == [0x61, 0x1F600, 0xD800]
    assert len(code_points("")) == 0


def test_runs_are_maximal_stretches():
    runs = find_runs("ab,c", np.array([True, True, False, True]))
    assert runs.words == ["ab", "c"]
    assert runs.starts.tolist() == [0, 3] and runs.ends.tolist() == [2, 4]


@given(st.text(" \n\u3000ab", max_size=30))
def test_inner_spaces_are_those_that_strip_leaves(text):
    codes = code_points(text)
    blank = np.array([char in " \u3000" for char in text], bool)
    start = 0
    expected = []
    for line in text.split("\n"):
        left = start + len(line) - len(line.lstrip())
        right = start + len(line.rstrip())
        expected += [place for place in range(left, right) if blank[place]]
        start += len(line) + 1
    assert inner_spaces(codes, blank).tolist() == expected


def test_singles_are_tokens_wherever_they_stand():
    cutting = BertCutting(lowercase=True)
    characters = [
        "我",
        "，",
        "!",
        " ",
        "\u3000",
        "\u2028",
        "a",
        "\u0301",
        "\u200b",
        "\u7c73",
        "\uf900",
    ]
    found = cutting.singles(characters)
    assert found[:6] == ["我", "，", "!", SPACE, SPACE, SPACE]
    assert found[6:9] == [RUN, RUN, RUN]
    # A compatibility ideograph is looked up under the one that it stands for.
    assert found[9:] == ["\u7c73", "\u8c48"]


def test_without_lowercase_nothing_is_decomposed():
    assert BertCutting(lowercase=False).singles(["\uf900", "É"]) == ["\uf900", RUN]


def test_an_unassigned_ideograph_does_not_spoil_the_others():
    alone = BertCutting(True).singles(["我"])
    assert BertCutting(True).singles(["\u9fff", "我"])[1:] == alone == ["我"]


def test_invisible_characters_are_counted():
    text = "a\t\r\n\u200b\u202e\ue000\U000e0001\u0378我"
    assert count_invisible(code_points(text)) == 5
