"""The 2020 reference's checkpoints: all generations of names, all encoders, there and back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.artifacts import read_json_artifact
from pipeline.registry import CONVERTERS
from pipeline.spec import ConvertSpec
from pipeline.training.inference import open_finetuned
from tests.golden import make_uer_classifier as classifier
from tests.golden.make_reference_parity import initial_values
from tests.golden.make_uer_generations import MODELS, SEGMENTS, SOURCE
from tests.pipeline.converters.conftest import (
    BERT,
    SMALL,
    TOKENS,
    MakeModel,
    Outcome,
    assert_same_bits,
    metadata_of,
    no_trace,
    tensors_of,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "uer_generations.json"
GENERATIONS: dict[str, Any] = json.loads(GOLDEN.read_text())
ENCODERS = {
    "bert": BERT,
    "gpt": {**BERT, "mask": "causal"},
    "lstm": {"name": "lstm", **SMALL},
    "elmo": {"name": "bilstm", **SMALL},
    "gru": {"name": "gru", **SMALL},
    "cls": BERT,
}
TARGETS = {
    "bert": [
        {"norm": "unbiased", "name": "mlm"},
        {"read_padding": True, "name": "nsp", "pooler": True},
    ],
    "gpt": [{"name": "lm"}],
    "lstm": [{"name": "lm"}],
    "elmo": [{"boundaries": True, "name": "bilm"}],
    "gru": [{"name": "lm"}],
    "cls": [{"read_padding": True, "name": "cls", "num_labels": 3}],
}


def golden_weights(generation: str, kind: str) -> dict[str, Tensor]:
    """Return the weights of a model of a generation, as the recording script filled them."""
    shapes = GENERATIONS[generation][kind]["shapes"]
    return {
        name: torch.from_numpy(np.ascontiguousarray(initial_values(name, tuple(shape))))
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_generation_loads_and_computes_what_its_code_computes(
    generation: str, kind: str, tmp_path: Path, vocab: Path
) -> None:
    source = tmp_path / "weights.bin"
    save_file(golden_weights(generation, kind), source)
    spec = {"architecture": {"embedding": "bert", "encoder": ENCODERS[kind]}}
    converter = CONVERTERS.get("uer")()
    model = converter.read(source, vocab, ConvertSpec.model_validate(spec))
    assert model.metadata["targets"] == TARGETS[kind]
    batch = {"token_ids": torch.from_numpy(SOURCE), "segment_ids": torch.from_numpy(SEGMENTS)}
    with torch.no_grad():
        hidden = model.build().encode({**batch, "lengths": batch["segment_ids"].gt(0).sum(1)})
    expected = torch.tensor(GENERATIONS[generation][kind]["hidden"]).view_as(hidden)
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=0)


MIXED = {"activation": "none", "kernel_size": 3, **SMALL}
# Encoder, targets, embedding: every table of names.
ROUND_TRIPS: list[tuple[dict[str, Any], list[Any], Any]] = [
    (BERT, ["mlm", "nsp"], "bert"),
    ({**BERT, "mask": "causal", "num_layers": 11}, ["lm"], "bert"),
    (BERT, [{"name": "mlm", "tied": True}, {"name": "nsp", "pooler": False}], "bert"),
    ({"name": "attention", "num_heads": 2, **SMALL}, ["mlm"], "bert"),
    ({"name": "lstm", **SMALL}, ["lm"], {"name": "word", "size": 6}),
    ({"name": "lstm", **SMALL}, [{"name": "lm", "tied": True}], "word"),
    ({"name": "gru", "bidirectional": True, **SMALL}, ["mlm"], "word"),
    ({"name": "bilstm", **SMALL}, ["bilm"], "word"),
    ({"name": "cnn", **MIXED, "num_layers": 3}, ["lm"], {"name": "bert", "size": 6}),
    ({"name": "gated_cnn", "num_layers": 5, "hidden_size": 8}, ["lm"], "bert"),
    ({"name": "rcnn", **MIXED}, ["lm"], "bert"),
    ({"name": "crnn", **MIXED}, [{"name": "cls", "num_labels": 3, "pooling": "last"}], "bert"),
    ({"name": "lstm", **SMALL}, [{"name": "s2s", "embedding_size": 6}], "word"),
]


def reread_without_child(folder: Path) -> dict[str, Tensor]:
    """Give model.bin the same tensors as safetensors, which need no child; return the tensors.

    A converter knows files by content, so the rest of the way is the same.
    """
    path = folder / "model.bin"
    tensors = torch.load(path, weights_only=True)
    path.unlink()
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)
    return tensors


@pytest.mark.parametrize("reference", ["none", "uer-2020"])
@pytest.mark.parametrize(("encoder", "targets", "embedding"), ROUND_TRIPS)
def test_there_and_back_is_the_same_bits(
    encoder: dict[str, Any],
    targets: list[Any],
    embedding: Any,
    reference: str,
    convert: Callable[..., Outcome],
    make_model: MakeModel,
    vocab: Path,
    tmp_path: Path,
) -> None:
    model = make_model(encoder, targets, embedding, reference)
    out, back = tmp_path / "out", tmp_path / "back"
    assert convert("native", "uer", model, out, "--vocab", vocab).code == 0
    reread_without_child(out)
    assert convert("uer", "native", out, back).code == 0
    assert_same_bits(tensors_of(back), tensors_of(model))
    stated = metadata_of(model)
    for key in ("architecture", "targets", "reference", "tokenizer", "vocabulary", "token_ids"):
        assert metadata_of(back)[key] == stated[key]
    assert (back / "vocab.txt").read_bytes() == vocab.read_bytes()


@pytest.mark.parametrize("kind", ["avg", "lstm", "cnn"])
def test_subencoders_go_with_their_characters(
    kind: str,
    convert: Callable[..., Outcome],
    make_model: MakeModel,
    vocab: Path,
    tmp_path: Path,
) -> None:
    model = make_model(ENCODERS["lstm"], ["lm"], "word", subencoder=kind)
    out, back = tmp_path / "out", tmp_path / "back"
    assert convert("native", "uer", model, out, "--vocab", vocab).code == 0
    tensors = reread_without_child(out)
    characters = (out / "sub_vocab.txt").read_text(encoding="utf-8").splitlines()
    assert characters[0] == "[PAD]"
    assert characters[1:] == sorted(set("".join(TOKENS)))
    assert len(tensors["subencoder.embedding_layer.weight"]) == len(characters)
    assert convert("uer", "native", out, back).code == 0
    assert_same_bits(tensors_of(back), tensors_of(model))
    (out / "sub_vocab.txt").unlink()
    done = convert("uer", "native", out, tmp_path / "no")
    assert (done.code, "sub_vocab.txt: no such file" in done.only_line) == (66, True)
    (out / "sub_vocab.txt").write_text("[PAD]\n的\n")
    done = convert("uer", "native", out, tmp_path / "no")
    assert (done.code, "2 characters, the subencoder has rows" in done.only_line) == (78, True)


def test_names_and_layouts_are_the_references(
    convert: Callable[..., Outcome], make_model: MakeModel, vocab: Path, tmp_path: Path
) -> None:
    model = make_model(embedding={"name": "bert", "max_positions": 512})
    convert("native", "uer", model, tmp_path / "out", "--vocab", vocab)
    tensors = torch.load(tmp_path / "out" / "model.bin", weights_only=True)
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    assert shapes == GENERATIONS["A"]["bert"]["shapes"]
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {
        "emb_size": 8,
        "feedforward_size": 16,
        "hidden_size": 8,
        "heads_num": 2,
        "layers_num": 2,
        "dropout": 0.1,
    }


def test_equal_models_give_equal_bytes(
    convert: Callable[..., Outcome], make_model: MakeModel, vocab: Path, tmp_path: Path
) -> None:
    model = make_model()
    for name in ("one", "two"):
        convert("native", "uer", model, tmp_path / name, "--vocab", vocab)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_a_bin_file_comes_in_through_the_child(
    convert: Callable[..., Outcome], vocab: Path, tmp_path: Path
) -> None:
    weights = golden_weights("A", "bert")
    torch.save({f"module.{name}": tensor for name, tensor in weights.items()}, tmp_path / "m.bin")
    spec = json.dumps({"architecture": {"embedding": "bert", "encoder": BERT}})
    more = ("--vocab", vocab, "--spec", spec)
    done = convert("uer", "native", tmp_path / "m.bin", tmp_path / "out", *more)
    assert done.code == 0
    assert done.lines == [
        f"convert: {tmp_path}/m.bin: no digest is known, the weights are not verified",
        "convert: uer: not compared: no program for the format uer runs here",
    ]
    tensors = tensors_of(tmp_path / "out")
    ours = tensors["encoder.layers.1.attention.key.weight"]
    assert torch.equal(ours, weights["encoder.transformer.1.self_attn.linear_layers.1.weight"])
    assert metadata_of(tmp_path / "out")["stamp"]["compared"] == {
        "uer": "not compared: no program for the format uer runs here"
    }


def test_architecture_states_the_references_modes(
    convert: Callable[..., Outcome], vocab: Path, tmp_path: Path
) -> None:
    save_file(golden_weights("A", "elmo"), tmp_path / "m.bin")
    spec = {"architecture": {"embedding": "bert", "encoder": ENCODERS["elmo"]}}
    for reference in ("none", "uer-2020"):
        text = json.dumps({**spec, "reference": reference})
        out = tmp_path / reference
        convert("uer", "native", tmp_path / "m.bin", out, "--vocab", vocab, "--spec", text)
        assert (out / "architecture.yaml").read_text() == (
            "embedding:\n  norm: unbiased\n  name: bert\n"
            "encoder:\n  read_padding: true\n  name: bilstm\n  hidden_size: 8\n  num_layers: 2\n"
        )
    assert metadata_of(tmp_path / "none")["architecture"]["embedding"]["norm"] == "unbiased"
    preset = metadata_of(tmp_path / "uer-2020")
    assert preset["reference"] == "uer-2020"
    assert preset["architecture"]["embedding"] == {"name": "bert"}  # as a recipe says it


def test_what_its_code_computes_otherwise_is_measured(
    convert: Callable[..., Outcome], make_model: MakeModel, vocab: Path, tmp_path: Path
) -> None:
    done = convert("native", "uer", make_model(), tmp_path / "out", "--vocab", vocab)
    note = next(line for line in done.lines if "computes otherwise" in line)
    assert "embedding.norm: layer, there unbiased; encoder.norm: layer, there unbiased" in note
    gap = float(note.rpartition(" ")[2])
    assert 0.01 < gap < 1  # sqrt(7/8) in every norm of 8 numbers
    preset = make_model(reference="uer-2020")
    done = convert("native", "uer", preset, tmp_path / "same", "--vocab", vocab)
    assert not [line for line in done.lines if "computes otherwise" in line]
    assert "expects [UNK] at 100, [CLS] at 101" in done.lines[0]


@pytest.mark.parametrize(
    ("encoder", "option"),
    [
        ({**BERT, "norm_position": "pre"}, "encoder.norm_position: pre"),
        ({**BERT, "positions": "rotary"}, "encoder.positions: rotary"),
        ({**BERT, "gated": True}, "encoder.gated: True"),
        ({**BERT, "activation": "relu"}, "encoder.activation: relu"),
        ({**BERT, "norm": "rms"}, "encoder.norm: rms"),
    ],
)
def test_what_it_cannot_compute_is_refused(
    encoder: dict[str, Any],
    option: str,
    convert: Callable[..., Outcome],
    make_model: MakeModel,
    vocab: Path,
    tmp_path: Path,
) -> None:
    done = convert("native", "uer", make_model(encoder), tmp_path / "out", "--vocab", vocab)
    assert done.code == 78
    assert option in done.only_line
    assert no_trace(tmp_path / "out")


def test_two_copies_of_a_tensor_must_agree(
    convert: Callable[..., Outcome], vocab: Path, tmp_path: Path
) -> None:
    weights = golden_weights("A", "lstm")
    twice = {
        **weights,
        "embedding.word.embedding.weight": weights["embedding.word_embedding.weight"],
    }
    spec = json.dumps({"architecture": {"embedding": "bert", "encoder": ENCODERS["lstm"]}})
    more = ("--vocab", vocab, "--spec", spec)
    save_file({k: v.clone() for k, v in twice.items()}, tmp_path / "equal.bin")
    assert convert("uer", "native", tmp_path / "equal.bin", tmp_path / "out", *more).code == 0
    twice["embedding.word.embedding.weight"] = weights["embedding.word_embedding.weight"] + 1
    save_file(twice, tmp_path / "differ.bin")
    done = convert("uer", "native", tmp_path / "differ.bin", tmp_path / "no", *more)
    assert (done.code, done.only_line) == (
        65,
        f"error: {tmp_path}/differ.bin: two tensors for embedding.word_embedding.weight, which "
        "differ; one is embedding.word_embedding.weight",
    )


def test_the_record_names_the_weights_it_is_for(
    convert: Callable[..., Outcome], make_model: MakeModel, vocab: Path, tmp_path: Path
) -> None:
    convert("native", "uer", make_model(), tmp_path / "out", "--vocab", vocab)
    tensors = reread_without_child(tmp_path / "out")
    record = read_json_artifact(tmp_path / "out" / "conversion.json", "convert")
    assert record["padding_segment"] is None
    path = tmp_path / "out" / "model.bin"
    path.unlink()
    tensors["target.layer_norm.beta"][0] += 1
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)
    done = convert("uer", "native", tmp_path / "out", tmp_path / "back")
    assert done.code == 76
    assert "damaged, or trained since: then remove conversion.json" in done.only_line


def test_without_an_architecture_nothing_is_guessed(
    convert: Callable[..., Outcome], vocab: Path, tmp_path: Path
) -> None:
    save_file(golden_weights("A", "bert"), tmp_path / "m.bin")
    done = convert("uer", "native", tmp_path / "m.bin", tmp_path / "out", "--vocab", vocab)
    assert done.code == 78
    assert "give `architecture` in --spec" in done.only_line


def test_a_fine_tuned_head_goes_out_and_comes_back(
    convert: Callable[..., Outcome], tmp_path: Path
) -> None:
    classifier.write_data(tmp_path)
    model = classifier.write_model(tmp_path, "bert")
    out, back = tmp_path / "out", tmp_path / "back"
    assert convert("native", "uer", model, out, "--vocab", tmp_path / "vocab.txt").code == 0
    assert {"output_layer_1.bias", "output_layer_2.bias"} < reread_without_child(out).keys()
    assert convert("uer", "native", out, back).code == 0
    assert_same_bits(tensors_of(back), tensors_of(model))
    opened = open_finetuned(back, None, torch.device("cpu"))
    assert opened.task.settings.labels == ("0", "1")
