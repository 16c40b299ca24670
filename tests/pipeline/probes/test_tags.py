"""Tags: a table of embeddings whose neighbours are known, counted by hand."""

import pytest
import torch

from pipeline.errors import DataError
from pipeline.probes.tags import TagsProbe
from pipeline.training.checkpoint import load_tensors, save_tensors
from tests.pipeline.probes.tiny import LSTM, KeptRows, request, write_model, write_vocabulary

NAMES, PLACES = ["甲", "乙", "丙", "丁"], ["东", "西", "南"]
CORPUS = (
    "甲/nr 乙/nr 丙/nr 丁/nr 东/ns 西/ns 南/ns 看/v\n"
    "甲/nr 乙/nr 丙/nr 丁/nr 东/ns 西/ns 南/ns 书/n 书/v 甲/nr\n"
    "甲/nr 龘/nr 龘/nr\n"
)


def run(folder, corpus=CORPUS, **options):
    """Run with an embedding in which names lie along one axis and places along another."""
    write_vocabulary(folder, *NAMES, *PLACES)
    path = write_model(folder, "lm", LSTM, {"name": "word"})
    tensors, metadata = load_tensors(path)
    table = tensors["embedding.word.weight"]
    for axis, words in enumerate((NAMES, PLACES)):
        for number, word in enumerate(words):
            row = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n").index(word)
            table[row] = torch.eye(16)[axis] + 0.1 * torch.eye(16)[2 + number]
    save_tensors(path, tensors, {k: v for k, v in metadata.items() if k != "weights"})
    source = folder / "tagged.txt"
    source.write_text(corpus, encoding="utf-8")
    output = KeptRows()
    books = TagsProbe(TagsProbe.Config(**options), request(folder, source)).run(output)
    return output.rows, books


def test_shares_and_chance_by_hand(tmp_path):
    rows, books = run(tmp_path, min_count=2, top=2)
    # 书 has no clear tag, 看 none of the asked ones, 龘 is no token.
    assert books["words"] == books["candidates"] == 7
    assert [row["word"] for row in rows] == [*NAMES, *PLACES]
    assert books["share"] == 1.0
    # A random other candidate of 6: a name finds 3 names, a place 2 places.
    assert books["chance"] == pytest.approx((4 * 3 / 6 + 3 * 2 / 6) / 7)
    assert all(key.endswith("/nr") for row in rows[:4] for key in row["neighbours"])


def test_more_neighbours_than_kin_and_fewer_words(tmp_path):
    rows, books = run(tmp_path, min_count=2, top=3, words=2, tags=["nr", "ns"])
    assert [(row["word"], row["tag"]) for row in rows] == [("甲", "nr"), ("东", "ns")]
    assert [row["share"] for row in rows] == [1.0, pytest.approx(2 / 3)]
    assert books["share"] == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ("甲/nr 乙\n", r"tagged\.txt:1: '乙' is not word/tag$"),
        ("/nr\n", r"tagged\.txt:1: '/nr' is not word/tag$"),
        ("甲/nr\n", r"shares 1 clearly tagged words with it; words of two tags of nr, ns, nt, n"),
        ("", r"shares 0 clearly tagged words"),
    ],
)
def test_corpora_that_cannot_be_used(tmp_path, corpus, message):
    with pytest.raises(DataError, match=message):
        run(tmp_path, corpus, min_count=1)
