"""Texts found in corpora of every format, as a plain search finds them."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, DataError, MissingError
from pipeline.text.overlap import find_texts
from tests.pipeline.text.writing import written

PIECES = st.sampled_from(["好", "书", "好书", "a", " ", "\t"])
LINES = st.lists(st.lists(PIECES, max_size=3).map("".join), max_size=9)
TEXTS = ["好", "书", "好书", "书好", "a", "好 书", "好\n书", "好书a", "a a", "好 ", "无"]


def plain(lines):
    """Return all texts that stand in a corpus, written plainly."""
    found = set(lines)
    for line in lines:
        found |= set(line.split("\t"))
    document = []
    for line in [*lines, ""]:
        if line.strip(" \t"):
            document.append(line)
        elif document:
            found |= {joint.join(document) for joint in ("", " ", "\n")}
            document = []
    return found


@given(st.lists(LINES, min_size=1, max_size=3), st.sampled_from([2, 7, 1 << 20]))
@settings(max_examples=200, deadline=None)
def test_what_is_found_is_what_a_plain_search_finds(tmp_path_factory, corpora, block):
    folder = tmp_path_factory.mktemp("corpora")
    paths = [
        written(folder / f"{number}.txt", "".join(f"{line}\n" for line in lines))
        for number, lines in enumerate(corpora)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.text.corpus.BLOCK_BYTES", block)
        found = find_texts(paths, TEXTS)
    assert found == set(TEXTS) & set().union(*map(plain, corpora))


@pytest.mark.parametrize(
    "corpus",
    ["别的\n这本书很好\n", "1\t这本书很好\n", "0\t别的\t这本书很好\n", "this book\t这本书很好\n",
     "这本书\n很好\n\n别的\n", "别的\n \n这本书\n很好", "这本书很好\r\n", "\ufeff这本书很好\n"],
    ids=["lines", "labelled", "pair", "parallel", "document", "last", "windows", "mark"],
)  # fmt: skip
def test_every_format_of_a_corpus(corpus, tmp_path):
    path = written(tmp_path / "corpus.txt", corpus)
    assert find_texts([path], ["这本书很好", "这本书不好"]) == {"这本书很好"}


@pytest.mark.parametrize("line", ["这本书很好 ", "这本书很好！", "Ａ书", "这本书\n\n很好", "这本"])
def test_texts_are_compared_letter_by_letter(line, tmp_path):
    path = written(tmp_path / "corpus.txt", f"{line}\n")
    assert find_texts([path], ["这本书很好", "A书"]) == set()


def test_documents_end_with_their_file(tmp_path):
    paths = [written(tmp_path / "a.txt", "这本书\n"), written(tmp_path / "b.txt", "很好\n")]
    assert find_texts(paths, ["这本书很好"]) == set()


def test_lines_that_are_no_text_are_passed_over(tmp_path):
    path = written(tmp_path / "corpus.txt", b"a\xff\n\0\n" + "好\n".encode())
    assert find_texts([path], ["好"]) == {"好"}


def test_nothing_to_look_for_or_in(tmp_path):
    empty = written(tmp_path / "empty.txt", "")
    assert find_texts([], ["好"]) == find_texts([empty], ["好"]) == frozenset()
    assert find_texts([written(tmp_path / "corpus.txt", "好\n")], []) == frozenset()


def test_corpora_that_cannot_be_read(tmp_path):
    path = written(tmp_path / "corpus.txt", "好\n")
    os.link(path, tmp_path / "again.txt")
    with pytest.raises(ConfigError, match="are one file; give it once"):
        find_texts([path, tmp_path / "again.txt"], ["好"])
    with pytest.raises(MissingError, match=r"absent\.txt: no such file"):
        find_texts([tmp_path / "absent.txt"], ["好"])
    with pytest.raises(DataError):
        find_texts([written(tmp_path / "packed.txt", b"\x1f\x8b\x08\x00" + b"x" * 9)], ["好"])
