"""Repeats and conflicts: the same as a dictionary finds, in memory and spilled."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.text.repeats import Repeats


def plain(texts, labels):
    """Return (repeats, conflicts), written plainly."""
    copies = {}
    for number, text in enumerate(texts):
        copies.setdefault(text, []).append(number)
    repeats, conflicts = [], []
    for numbers in copies.values():
        torn = labels is not None and len({labels[number] for number in numbers}) > 1
        if torn:
            conflicts += numbers
        else:
            repeats += numbers[1:]
    return sorted(repeats), sorted(conflicts)


@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b""]), st.sampled_from([b"0", b"1"]))),
    st.booleans(),
    st.integers(1, 4),
    st.sampled_from([0, 3, 2_000_000]),
)
@settings(max_examples=150, deadline=None)
def test_repeats_are_those_a_dictionary_finds(tmp_path_factory, rows, labelled, size, memory):
    texts = [text for text, _ in rows]
    labels = [label for _, label in rows] if labelled else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.text.repeats.MAX_IN_MEMORY", memory)
        repeats = Repeats(tmp_path_factory.mktemp("r"))
        for at in range(0, len(texts), size):
            repeats.add(texts[at : at + size], labels and labels[at : at + size])
        found = tuple(numbers.tolist() for numbers in repeats.find())
    assert found == plain(texts, labels)


def test_nothing_repeats_nothing(tmp_path):
    repeats, conflicts = Repeats(tmp_path).find()
    assert repeats.tolist() == conflicts.tolist() == []
