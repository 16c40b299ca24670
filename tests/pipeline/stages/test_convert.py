"""The stage convert: what it writes, where, and what it takes."""

# Fixtures are imported by name.
# ruff: noqa: F401, F811

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.stages.convert import require_alike
from tests.pipeline.converters.conftest import (
    MakeModel,
    Outcome,
    convert,
    make_model,
    metadata_of,
    no_trace,
    tensors_of,
    vocab,
)
from tests.pipeline.stages.checkpoints import SPEC, saved, weights


def test_a_harmless_legacy_file_comes_in(
    convert: Callable[..., Outcome],
    make_model: MakeModel,
    vocab: Path,
    tmp_path: Path,
) -> None:
    model = make_model(targets=["mlm"])
    convert("native", "uer", model, tmp_path / "out", "--vocab", vocab)
    tensors = torch.load(tmp_path / "out" / "model.bin", weights_only=True)
    (tmp_path / "legacy.bin").write_bytes(saved(tensors, zipped=False))
    more = ("--vocab", vocab, "--spec", SPEC, "--set", "reference=none")
    done = convert("uer", "native", tmp_path / "legacy.bin", tmp_path / "back", *more)
    assert done.code == 0
    assert "no digest is known, the weights are not verified" in done.lines[0]
    before, after = tensors_of(model), tensors_of(tmp_path / "back")
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("origin", "goal", "code", "message"),
    [
        ("uerr", "native", 78, "--from: no converter 'uerr'; did you mean 'uer'? known: google,"),
        ("uer", "onnx", 78, "--to: no converter 'onnx'"),
        ("uer", "native", 66, "missing.bin: no such file"),
        ("huggingface", "native", 66, "missing.bin: no such directory"),
        ("native", "uer", 66, "missing.bin: no such model"),
    ],
)
def test_wrong_names(
    origin: str,
    goal: str,
    code: int,
    message: str,
    convert: Callable[..., Outcome],
    vocab: Path,
    tmp_path: Path,
) -> None:
    done = convert(origin, goal, tmp_path / "missing.bin", tmp_path / "out", "--vocab", vocab)
    assert (done.code, message in done.only_line) == (code, True), done
    assert no_trace(tmp_path / "out")


def test_a_directory_with_other_things_is_left_alone(
    convert: Callable[..., Outcome],
    make_model: MakeModel,
    vocab: Path,
    tmp_path: Path,
) -> None:
    out, model = tmp_path / "out", make_model()
    assert convert("native", "native", model, out, "--vocab", vocab).code == 0
    assert convert("native", "native", model, out, "--vocab", vocab).code == 0
    (out / "notes.txt").write_text("mine")
    done = convert("native", "native", model, out, "--vocab", vocab)
    assert (done.code, "holds notes.txt" in done.only_line) == (64, True)
    done = convert("native", "native", model, model, "--vocab", vocab)
    assert (done.code, "is a file; a directory is written" in done.only_line) == (64, True)


def test_a_model_of_ours_is_copied_bit_for_bit(
    convert: Callable[..., Outcome],
    make_model: MakeModel,
    vocab: Path,
    tmp_path: Path,
) -> None:
    model, out = make_model(), tmp_path / "out"
    assert convert("native", "native", model, out, "--vocab", vocab).lines == []
    assert (out / "model.safetensors").read_bytes() == model.read_bytes()
    names = sorted(path.name for path in out.iterdir())
    assert names == ["architecture.yaml", "model.safetensors", "vocab.txt"]
    architecture = metadata_of(out)["architecture"]
    same = json.dumps({"architecture": architecture, "reference": "none"})
    assert convert("native", "native", out, tmp_path / "same", "--spec", same).code == 0
    done = convert("native", "native", out, tmp_path / "no", "--set", "lowercase=false")
    assert (done.code, "lowercase: True -> False" in done.only_line) == (78, True)
    done = convert("native", "uer", model, tmp_path / "no")
    assert (done.code, "--vocab is missing" in done.only_line) == (64, True)


def test_a_full_disk_leaves_nothing(
    make_model: MakeModel,
    vocab: Path,
    tmp_path: Path,
) -> None:
    """Files are limited to fewer bytes than the model needs."""
    model = make_model()
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "import torch; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from pipeline.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["convert", "--from", "native", "--to", "native", "--in", str(model)]
    arguments += ["--vocab", str(vocab), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 74, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert no_trace(tmp_path / "out")


def test_a_converted_model_is_one_that_stages_take(
    convert: Callable[..., Outcome],
    weights: dict[str, Tensor],
    vocab: Path,
    tmp_path: Path,
) -> None:
    from pipeline.training.pretrained import open_pretrained

    save_file(weights, tmp_path / "w.bin")
    more = ("--vocab", vocab, "--spec", SPEC)
    assert convert("uer", "native", tmp_path / "w.bin", tmp_path / "model", *more).code == 0
    opened = open_pretrained(tmp_path / "model", None, torch.device("cpu"))
    assert list(opened.model.targets) == ["mlm"]
    assert metadata_of(tmp_path / "model")["stamp"]["settings"]["from"] == "uer"


@pytest.mark.parametrize("gap", [0.002, float("nan")])
def test_a_model_that_computes_otherwise_does_not_come_in(gap: float) -> None:
    require_alike({"huggingface": {"hidden": 0.0009, "mlm": 5.0}, "uer": "not compared"}, Path("m"))
    with pytest.raises(ConfigError, match="m: computes other hidden states here than by hugging"):
        require_alike({"huggingface": {"hidden": gap}}, Path("m"))
