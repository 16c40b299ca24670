"""Google BERT: names, and TensorFlow's own reader and writer where it is installed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from pipeline.converters.google import GoogleConverter, from_variable, to_variable
from pipeline.converters.tensorflow_file import MAGIC
from tests.pipeline.converters.conftest import (
    MakeModel,
    Outcome,
    assert_same_bits,
    metadata_of,
    no_trace,
    tensors_of,
)

without_it = find_spec("tensorflow") is None
needs_tensorflow = pytest.mark.skipif(without_it, reason="needs the extra `tensorflow`")

# The variables of BERT as published: name in a BERT -> variable, shape turned or not.
VARIABLES = {
    "bert.embeddings.word_embeddings.weight": "bert/embeddings/word_embeddings",
    "bert.embeddings.token_type_embeddings.weight": "bert/embeddings/token_type_embeddings",
    "bert.embeddings.LayerNorm.weight": "bert/embeddings/LayerNorm/gamma",
    "bert.encoder.layer.11.attention.self.query.weight": (
        "bert/encoder/layer_11/attention/self/query/kernel"
    ),
    "bert.encoder.layer.0.attention.output.LayerNorm.bias": (
        "bert/encoder/layer_0/attention/output/LayerNorm/beta"
    ),
    "bert.encoder.layer.0.intermediate.dense.bias": "bert/encoder/layer_0/intermediate/dense/bias",
    "bert.encoder.layer.0.output.dense.weight": "bert/encoder/layer_0/output/dense/kernel",
    "bert.pooler.dense.weight": "bert/pooler/dense/kernel",
    "cls.seq_relationship.weight": "cls/seq_relationship/output_weights",
    "cls.seq_relationship.bias": "cls/seq_relationship/output_bias",
    "cls.predictions.transform.dense.weight": "cls/predictions/transform/dense/kernel",
    "cls.predictions.transform.LayerNorm.weight": "cls/predictions/transform/LayerNorm/gamma",
    "cls.predictions.bias": "cls/predictions/output_bias",
}


@pytest.mark.parametrize(("name", "variable"), VARIABLES.items())
def test_names(name: str, variable: str) -> None:
    assert to_variable(name) == variable
    assert from_variable(variable) == name


def test_kernels_are_turned_and_nothing_else() -> None:
    kernel, table = torch.arange(6.0).view(2, 3), torch.ones(4, 3)
    packed = {
        "bert.pooler.dense.weight": kernel,
        "bert.embeddings.word_embeddings.weight": table,
        "cls.seq_relationship.weight": kernel,
    }
    found = GoogleConverter().arrange(packed)
    assert torch.equal(found["bert/pooler/dense/kernel"], kernel.T)
    assert torch.equal(found["cls/seq_relationship/output_weights"], kernel)
    assert_same_bits(GoogleConverter().rename(found, ""), packed)


def test_without_tensorflow_it_says_what_to_install(
    make_model: MakeModel, vocab: Path, tmp_path: Path
) -> None:
    """In a process whose TensorFlow, if there is one, cannot be found."""
    code = (
        "import sys, importlib.util as u; found = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'tensorflow' else found(name, *a)\n"
        "from pipeline.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["convert", "--from", "native", "--to", "google", "--in", str(make_model())]
    arguments += ["--vocab", str(vocab), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 78
    assert done.stderr == (
        "error: format google needs TensorFlow, which is not installed; "
        "`pip install pretrain-zoo[tensorflow]`\n"
    )
    assert no_trace(tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes, empty"),
        (b"<html><body>Not found</body></html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"\0" * 50, "a file of unknown kind"),
    ],
)
def test_other_files_are_recognised_without_tensorflow(
    content: bytes, message: str, convert: Callable[..., Outcome], vocab: Path, tmp_path: Path
) -> None:
    source = tmp_path / "published"
    source.mkdir()
    (source / "bert_model.ckpt.index").write_bytes(content)
    done = convert("google", "native", source, tmp_path / "out", "--vocab", vocab)
    assert (done.code, message in done.only_line) == (65, True)
    assert no_trace(tmp_path / "out")


def test_parts_that_are_not_there(
    convert: Callable[..., Outcome], vocab: Path, tmp_path: Path
) -> None:
    source = tmp_path / "published"
    source.mkdir()
    more = ("--vocab", vocab)
    done = convert("google", "native", source, tmp_path / "out", *more)
    assert (done.code, "no bert_model.ckpt.index" in done.only_line) == (66, True)
    (source / "bert_model.ckpt.index").write_bytes(b"\0" * 40 + MAGIC)
    done = convert("google", "native", source, tmp_path / "out", *more)
    assert (done.code, "bert_model.ckpt.data-00000-of-00001: no such" in done.only_line) == (
        66,
        True,
    )
    (source / "model.ckpt-100.index").write_bytes(b"")
    done = convert("google", "native", source, tmp_path / "out", *more)
    assert (done.code, "2 checkpoints; name one" in done.only_line) == (65, True)


@needs_tensorflow
@pytest.mark.slow
def test_there_and_back_within_what_the_format_has(
    convert: Callable[..., Outcome], make_model: MakeModel, vocab: Path, tmp_path: Path
) -> None:
    path, out, back = make_model(), tmp_path / "out", tmp_path / "back"
    done = convert("native", "google", path, out, "--vocab", vocab)
    assert done.code == 0
    assert "google's softmax is the word embedding; this model's own is lost" in done.lines[0]
    assert convert("google", "native", out, back).code == 0
    before, after = tensors_of(path), tensors_of(back)
    del before["targets.mlm.output.weight"]
    assert_same_bits(after, before)
    assert metadata_of(back)["targets"] == [{"name": "mlm", "tied": True}, {"name": "nsp"}]


@needs_tensorflow
@pytest.mark.slow
def test_as_published(
    convert: Callable[..., Outcome], make_model: MakeModel, vocab: Path, tmp_path: Path
) -> None:
    """Without our record, named by its prefix, with the optimizer's variables and a step."""
    path, out = make_model(targets=[{"name": "mlm", "tied": True}, "nsp"]), tmp_path / "published"
    convert("native", "google", path, out, "--vocab", vocab)
    (out / "conversion.json").unlink()
    code = (
        "import sys, tensorflow as tf; prefix = sys.argv[1]\n"
        "reader = tf.train.load_checkpoint(prefix)\n"
        "found = {n: reader.get_tensor(n) for n in reader.get_variable_to_shape_map()}\n"
        "found |= {n + '/adam_m': v for n, v in found.items()} | {'global_step': tf.constant(7)}\n"
        "tf.raw_ops.SaveV2(prefix=sys.argv[2], tensor_names=list(found),\n"
        "    shape_and_slices=[''] * len(found), tensors=list(map(tf.constant, found.values())))"
    )
    trained = out / "model.ckpt-7"
    prefix = str(out / "bert_model.ckpt")
    subprocess.run([sys.executable, "-c", code, prefix, str(trained)], check=True)
    done = convert("google", "native", trained, tmp_path / "back", "--vocab", vocab)
    assert done.code == 0
    before, after = tensors_of(path), tensors_of(tmp_path / "back")
    before["embedding.segment.weight"][0] = 0
    assert_same_bits(after, before)
    assert metadata_of(tmp_path / "back")["architecture"]["encoder"]["num_heads"] == 2
    (out / "bert_config.json").unlink()
    done = convert("google", "native", trained, tmp_path / "no", "--vocab", vocab)
    assert (done.code, "give `architecture` in --spec" in done.only_line) == (78, True)
    architecture = metadata_of(tmp_path / "back")["architecture"]
    spec = json.dumps({"architecture": {**architecture}})
    done = convert(
        "google", "native", trained, tmp_path / "second", "--vocab", vocab, "--spec", spec
    )
    assert done.code == 0
    assert_same_bits(tensors_of(tmp_path / "second"), after)


@needs_tensorflow
@pytest.mark.slow
def test_a_damaged_checkpoint_is_told_as_such(
    convert: Callable[..., Outcome], make_model: MakeModel, vocab: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    convert("native", "google", make_model(), out, "--vocab", vocab)
    for name in ("bert_model.ckpt.data-00000-of-00001", "bert_model.ckpt.index"):
        path = out / name
        content = bytearray(path.read_bytes())
        path.unlink()
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        done = convert("google", "native", out, tmp_path / "back")
        assert (done.code, "damaged or cut off" in done.only_line) == (65, True)
        assert no_trace(tmp_path / "back")
        content[len(content) // 2] ^= 1
        os.unlink(path)
        path.write_bytes(content)
