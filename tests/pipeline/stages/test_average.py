"""Averages: exact, free of order, and only of models that fit."""

import itertools

import pytest
import torch
from safetensors.torch import load_file

from pipeline.__main__ import main
from pipeline.artifacts import make_stamp, read_tensor_stamp
from pipeline.training.checkpoint import save_tensors

METADATA = {"architecture": {"encoder": {"name": "lstm"}}, "vocabulary": "a" * 32}


def save(path, tensor, **metadata):
    stamp = make_stamp("pretrain", {}, {})
    save_tensors(path, {"encoder.w": tensor}, {**METADATA, "stamp": stamp, **metadata})
    return str(path)


def test_the_mean_is_exact_and_every_order_gives_the_same_file(tmp_path):
    torch.manual_seed(1)
    tensors = [torch.randn(1000) * 10.0**n for n in range(3)]
    paths = [save(tmp_path / f"{n}.safetensors", t, step=n) for n, t in enumerate(tensors)]
    contents = set()
    for order in itertools.permutations(paths):
        assert (
            main(["average", "--models", *order, "--out", str(tmp_path / "mean.safetensors")]) == 0
        )
        contents.add((tmp_path / "mean.safetensors").read_bytes())
    assert len(contents) == 1
    mean = load_file(tmp_path / "mean.safetensors")["encoder.w"]
    torch.testing.assert_close(mean, torch.stack(tensors).double().mean(0).float(), rtol=0, atol=0)


def test_names_do_not_decide_the_order(tmp_path):
    a, b = torch.randn(50), torch.randn(50)
    for name, (first, second) in {"x": (a, b), "y": (b, a)}.items():
        paths = [
            save(tmp_path / f"{name}{n}.safetensors", t, step=1)
            for n, t in ((1, first), (2, second))
        ]
        assert (
            main(["average", "--models", *paths, "--out", str(tmp_path / f"{name}.safetensors")])
            == 0
        )
    assert (tmp_path / "x.safetensors").read_bytes() == (tmp_path / "y.safetensors").read_bytes()


def test_one_model_keeps_its_weights(tmp_path):
    path = save(tmp_path / "1.safetensors", torch.randn(5))
    assert main(["average", "--models", path, "--out", str(tmp_path / "out.safetensors")]) == 0
    ours, theirs = (read_tensor_stamp(tmp_path / f"{n}.safetensors") for n in ("out", "1"))
    assert ours["weights"] == theirs["weights"]


def refused(tmp_path, capsys, *paths):
    code = main(
        ["average", "--models", *map(str, paths), "--out", str(tmp_path / "out.safetensors")]
    )
    assert not (tmp_path / "out.safetensors").exists()
    return code, capsys.readouterr().err


def test_the_same_file_twice_is_a_usage_error(tmp_path, capsys):
    path = save(tmp_path / "1.safetensors", torch.ones(2))
    code, said = refused(tmp_path, capsys, path, path)
    assert (code, said) == (64, "error: --models: a model is given twice\n")


@pytest.mark.parametrize(
    ("tensor", "metadata", "code", "text"),
    [
        (torch.ones(3), {}, 78, "encoder.w is torch.float32 [3]"),
        (torch.tensor([1.0, float("nan")]), {}, 65, "encoder.w holds 1 values that are not finite"),
        (torch.ones(2, dtype=torch.float64), {}, 78, "torch.float64"),
        (torch.ones(2), {"vocabulary": "b" * 32}, 78, "cannot be averaged with"),
        (
            torch.ones(2),
            {"architecture": {"encoder": {"name": "gru"}}},
            78,
            "architecture.encoder.name",
        ),
    ],
)
def test_models_that_do_not_fit_are_refused(tmp_path, capsys, tensor, metadata, code, text):
    good = save(tmp_path / "1.safetensors", torch.ones(2))
    bad = save(tmp_path / "2.safetensors", tensor, **metadata)
    found, said = refused(tmp_path, capsys, good, bad)
    assert found == code
    assert text in said
    assert said.count("\n") == 1


def test_a_missing_model_is_named(tmp_path, capsys):
    code, said = refused(tmp_path, capsys, tmp_path / "no.safetensors")
    assert code == 66
    assert "no.safetensors: no such model" in said
