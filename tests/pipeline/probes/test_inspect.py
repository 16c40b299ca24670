"""Inspection: parameters by hand; a model that does not work says so."""

import pytest
import torch

from pipeline.errors import DataError
from pipeline.probes.inspect import InspectProbe
from pipeline.training.checkpoint import load_tensors, save_tensors
from tests.pipeline.probes.tiny import LSTM, KeptRows, request, write_model


def run(folder):
    output = KeptRows()
    books = InspectProbe(InspectProbe.Config(), request(folder)).run(output)
    return {row["fact"]: row["value"] for row in output.rows}, books


def test_facts_by_hand(tmp_path):
    write_model(tmp_path, "lm", LSTM, {"name": "word"})
    facts, books = run(tmp_path)
    vocabulary = 5 + 46 + 6
    assert facts["parameters of embedding"] == vocabulary * 16 + 32
    assert facts["parameters of encoder"] == 2 * (4 * 16 * 16 * 2 + 4 * 16 * 2)
    assert facts["parameters of targets.lm"] == vocabulary * 16 + vocabulary
    assert facts["parameters"] == sum(
        count for fact, count in facts.items() if fact.startswith("parameters of ")
    )
    assert facts["targets"] == "lm" and facts["longest row"] == "no limit"
    assert facts["forward pass on cpu"].startswith("finite (")
    assert books == {"parameters": facts["parameters"], "devices": 1 + torch.cuda.device_count()}


def test_positions_are_the_longest_row(tmp_path):
    write_model(tmp_path)
    assert run(tmp_path)[0]["longest row"] == 32


def change(path, **changes):
    tensors, metadata = load_tensors(path)
    metadata.pop("weights")
    tensors = {name: tensor for name, tensor in tensors.items() if name not in changes}
    save_tensors(path, {**tensors, **{k: v for k, v in changes.items() if v is not None}}, metadata)


def test_a_model_that_is_not_whole_is_refused(tmp_path):
    path = write_model(tmp_path)
    tensors, _ = load_tensors(path)
    changes = {
        "encoder.extra": torch.zeros(2),
        "embedding.norm.bias": None,
        "embedding.segment.weight": torch.zeros(3, 8),
    }
    change(path, **changes)
    with pytest.raises(DataError) as caught:
        run(tmp_path)
    assert caught.value.problems == (
        f"{path}: tensor embedding.norm.bias is missing",
        f"{path}: tensor encoder.extra is not one of the model",
        f"{path}: tensor embedding.segment.weight has shape [3, 8], the model [3, 16]",
    )
    change(path, **{name: tensors.get(name) for name in changes})
    assert run(tmp_path)[1]["parameters"] > 0


def test_states_that_are_not_finite_are_told(tmp_path):
    path = write_model(tmp_path)
    bias = load_tensors(path)[0]["embedding.norm.bias"]
    change(path, **{"embedding.norm.bias": bias * torch.nan})
    with pytest.raises(DataError, match=r"hidden states on cpu are not finite$"):
        run(tmp_path)
