"""Answers scored as CMRC 2018 scores them, beside a plain transcription of its published rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text.answers import answer_units, is_exact, longest_common_run, overlap_f1

MARKS = [*"-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』", "……"]


def published_units(text):
    """The rules of the published evaluation script, for answers without Latin words."""
    units, word = [], ""
    for character in str(text).lower().strip():
        if character in MARKS:
            continue
        if "\u4e00" <= character <= "\u9fa5":
            units += [word] if word else []
            units.append(character)
            word = ""
        else:
            word += character
    return units + ([word] if word else [])


def published_run(first, second):
    """Return the longest common contiguous run, by trying all."""
    return max(
        n
        for i in range(len(first) + 1)
        for j in range(len(second) + 1)
        for n in range(min(len(first) - i, len(second) - j) + 1)
        if first[i : i + n] == second[j : j + n]
    )


@pytest.mark.parametrize(
    ("gold", "found", "exact", "f1"),
    [
        ("光荣和ω-force", "光荣和Ω-FORCE", True, 1.0),
        ("《红楼梦》", "红楼梦", True, 1.0),
        ("北京市", "北京", False, 0.8),
        ("北京市海淀区", "北京海淀", False, 0.4),
        ("2003年5月", "2003年", False, 2 * 2 / 6),
        ("北京", "上海", False, 0.0),
        ("北京", "", False, 0.0),
        (" 3.5 ", "3.5", True, 1.0),
        ("o'clock news", "news", False, 2 / 3),
    ],
)
def test_cases_by_hand(gold, found, exact, f1):
    assert is_exact(gold, found) == exact
    assert overlap_f1(gold, found) == pytest.approx(f1)


ANSWER = st.text("北京市海淀区中年12，。《》-", max_size=9)


@given(ANSWER, ANSWER)
def test_scores_equal_the_published_rules(gold, found):
    ours, theirs = published_units(gold), published_units(found)
    assert answer_units(gold) == ours
    common = published_run(ours, theirs)
    assert longest_common_run(ours, theirs) == common
    if common:
        precision, recall = common / len(theirs), common / len(ours)
        expected = 2 * precision * recall / (precision + recall)
        assert overlap_f1(gold, found) == pytest.approx(expected)
    else:
        assert overlap_f1(gold, found) == 0.0
