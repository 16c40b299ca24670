"""A model that we export scores in the reference's own classifier as our `evaluate` says.

Expected: uer_classifier.json, written by make_uer_classifier.py.
"""

import json
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.artifacts import read_json_artifact
from tests.golden import make_uer_classifier as reference

EXPECTED = json.loads(Path(__file__).with_name("uer_classifier.json").read_text())


@pytest.mark.parametrize("case", reference.CASES)
def test_accuracy_is_the_references(case: str, tmp_path: Path) -> None:
    reference.write_data(tmp_path)
    model, out = reference.write_model(tmp_path, case), tmp_path / "metrics.json"
    arguments = ["--model", model, "--vocab", tmp_path / "vocab.txt"]
    arguments += ["--data", tmp_path / "rows.tsv", "--out", out]
    assert main(["evaluate", *map(str, arguments)]) == 0
    found, expected = read_json_artifact(out, "evaluate"), EXPECTED[case]
    assert found["counts"]["scored"] == expected["rows"] == reference.ROWS
    assert found["metrics"]["accuracy"] == expected["correct"] / expected["rows"]
    assert found["confusion"] == expected["confusion"]
    assert all(sum(column) > 20 for column in zip(*expected["confusion"], strict=True))
