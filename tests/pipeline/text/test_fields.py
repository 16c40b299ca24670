"""Fields of labelled and parallel lines: what is malformed is told with its line, or counted."""

from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.text.corpus import Block
from pipeline.text.fields import iter_fields, labelled_problem, parallel_problem
from pipeline.text.ledger import Ledger
from tests.pipeline.text.writing import written


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1\t好", None),
        ("0\t好\t坏", None),
        ("好", "wrong number of fields"),
        ("1\ta\tb\tc", "wrong number of fields"),
        ("-1\t好", "label is not a number"),
        ("1.0\t好", "label is not a number"),
        ("\u0661\t好", "label is not a number"),
        ("\t好", "label is not a number"),
        ("100000\t好", "label is not a number"),
    ],
)
def test_labelled_lines(line, reason):
    found = labelled_problem(line.split("\t"))
    assert (found and found[0]) == reason


def test_parallel_lines():
    assert parallel_problem(["a", "b"]) is None
    assert parallel_problem(["a"])[1] == "1 tab-separated fields; needed are source and target"


def test_bad_lines_are_told_or_counted(tmp_path):
    path = written(tmp_path / "c", "x\ty\n\n \nz\n")
    block = Block.decode(path.read_bytes(), Path(path), 0)
    ledger = Ledger()
    assert list(iter_fields(block, parallel_problem, True, ledger)) == [(0, ["x", "y"])]
    assert ledger.counts["blank_lines"] == 2
    assert ledger.record()["dropped"] == {"wrong number of fields": 1}
    with pytest.raises(DataError, match=f"{path}:4: 1 tab-separated fields"):
        list(iter_fields(block, parallel_problem, False, Ledger()))
