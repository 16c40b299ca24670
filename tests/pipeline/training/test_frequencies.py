"""A softmax over the vocabulary begins at the frequencies of what it is to predict."""

import math
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file

from pipeline.text.vocabulary import read_vocabulary
from tests.pipeline.stages.training_command import LINES, changed, make_inputs, train


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def first_step(inputs, out, *more, output_bias="frequencies", **others):
    """Return the weights after one update that moves nothing."""
    spec = changed(total_steps=1, checkpoint_steps=1, learning_rate=1e-12, output_bias=output_bias)
    assert train(inputs, out, *more, spec=spec | others).lines == []
    return load_file(out / "step_00000001.safetensors")


def test_the_bias_is_the_log_frequency_of_the_labels(inputs, tmp_path):
    tokens = read_vocabulary(inputs.vocab).tokens
    seen = Counter(character for line in LINES.split() for character in line[1:])
    counts = torch.tensor([seen[token] + 1.0 for token in tokens])
    weights = first_step(inputs, tmp_path / "run")
    expected = (counts / counts.sum()).log()
    torch.testing.assert_close(weights["targets.lm.output.bias"], expected)
    assert weights["targets.lm.output.bias"][tokens.index("我")] < math.log(0.01)


def test_nothing_is_counted_where_not_wanted(inputs, tmp_path):
    zero = first_step(inputs, tmp_path / "zero", output_bias="zero")
    assert not zero["targets.lm.output.bias"].round(decimals=6).any()
    preset = first_step(inputs, tmp_path / "preset", reference="uer-2020")
    assert preset["targets.lm.output.bias"].std() == pytest.approx(0.02, rel=0.5)
    ours = first_step(inputs, tmp_path / "ours")
    for name in zero.keys() - {"targets.lm.output.bias"}:
        torch.testing.assert_close(ours[name], zero[name])


def test_the_head_of_a_model_to_start_from_is_kept(inputs, tmp_path):
    zero = first_step(inputs, tmp_path / "zero", output_bias="zero")
    init = ("--init", tmp_path / "zero" / "step_00000001.safetensors")
    second = first_step(inputs, tmp_path / "second", *init)
    torch.testing.assert_close(second, zero)
