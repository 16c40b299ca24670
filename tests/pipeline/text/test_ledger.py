"""The ledger: balanced or refused, summed over shards, and written as JSON values."""

import pytest

from pipeline.artifacts import write_json
from pipeline.errors import ArtifactError, PipelineError
from pipeline.text.ledger import Ledger, read_fetched
from tests.pipeline.text.writing import written


def balanced():
    ledger = Ledger()
    ledger.count("documents_in", 5)
    ledger.count("documents_out", 4)
    ledger.count("held_out", 1)
    ledger.drop("no tokens", 2)
    return ledger


def test_what_comes_in_goes_out_or_is_dropped():
    ledger = balanced()
    ledger.check_balance("set")
    assert ledger.record() == {
        "documents_in": 7, "documents_out": 4, "held_out": 1, "dropped": {"no tokens": 2},
    }  # fmt: skip


@pytest.mark.parametrize("unit", ["documents", "sentences"])
def test_books_that_do_not_balance_are_refused(unit):
    ledger = balanced()
    ledger.count(f"{unit}_in")
    with pytest.raises(PipelineError, match=f"set: . {unit} in, . accounted for"):
        ledger.check_balance("set")


def test_ledgers_add_up_and_survive_json():
    total = Ledger()
    for _ in range(2):
        other = balanced()
        other.drop("no tokens", 1, unit="sentences")
        total.add(Ledger(other.record()))
    assert total.record()["documents_in"] == 14
    assert total.record()["dropped"] == {"no tokens": 4}
    assert total.record()["dropped_sentences"] == {"no tokens": 2}


def test_ledgers_of_fetched_corpora_are_found_beside_them(tmp_path):
    fetched, plain = written(tmp_path / "a.txt", "abc\n"), written(tmp_path / "b.txt", "x\n")
    write_json(tmp_path / "a.ledger.json", {"stamp": {"stage": "fetch", "format": 1}, "bytes": 4})
    assert [ledger["name"] for ledger in read_fetched([fetched, plain])] == ["a"]
    written(fetched, "abcd\n")
    with pytest.raises(ArtifactError, match=r"5 bytes, a.ledger.json says 4; fetch it again"):
        read_fetched([fetched])
