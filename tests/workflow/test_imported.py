"""A model from elsewhere, put into the mirror, becomes a model of the zoo."""

from dataclasses import asdict
from pathlib import Path

from pipeline.__main__ import main
from pipeline.model import build_model, initialize
from pipeline.spec import ArchitectureSpec
from pipeline.text.vocabulary import read_vocabulary
from pipeline.training.checkpoint import load_tensors, save_tensors
from tests.workflow.zoo import Zoo

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"一二三四五六七八九十"]
TINY = {
    "embedding": {"name": "bert", "max_positions": 32},
    "encoder": {
        "name": "transformer", "hidden_size": 8, "num_layers": 1, "num_heads": 2,
        "feedforward_size": 16,
    },
}  # fmt: skip


def write_foreign_model(folder: Path, vocab: Path) -> None:
    """Write a model with random weights as Hugging Face does."""
    vocabulary = read_vocabulary(vocab)
    architecture = ArchitectureSpec.model_validate(TINY)
    model = build_model(architecture, vocabulary.token_ids)
    initialize(model, 7)
    metadata = {
        "stamp": {"stage": "pretrain", "format": 1, "settings": {}},
        "architecture": architecture.model_dump(mode="json"),
        "targets": [],
        "tokenizer": "bert",
        "lowercase": True,
        "special_tokens": True,
        "vocabulary": vocabulary.digest,
        "token_ids": asdict(vocabulary.token_ids),
    }
    native = folder.with_suffix(".safetensors")
    native.parent.mkdir(parents=True)
    save_tensors(native, model.state_dict(), metadata)
    command = ["convert", "--from", "native", "--to", "huggingface", "--in", str(native)]
    assert main([*command, "--vocab", str(vocab), "--out", str(folder)]) == 0


def test_a_supplied_model_is_converted_once(tmp_path: Path) -> None:
    zoo = Zoo(tmp_path / "zoo")
    vocab = zoo.folder / "mirror/foreign.txt"
    vocab.write_text("".join(f"{token}\n" for token in TOKENS), encoding="utf-8")
    zoo.write("vocabularies/foreign", {"imported": {"path": "foreign.txt"}})
    zoo.write("architectures/foreign", TINY)
    recipe = {
        "architecture": "foreign",
        "vocabulary": "foreign",
        "imported": {"converter": "huggingface", "source": {"path": "models/foreign"}},
        "needs": "folder models/foreign",
        "datasets": [],
    }
    zoo.write("zoo/foreign", recipe)
    write_foreign_model(zoo.folder / "mirror/models/foreign", vocab)
    model = "results/4_average/foreign.safetensors"
    ran = zoo.run(model)
    assert ran == {"fetch_vocabulary": 1, "vocab": 1, "convert": 1, "average": 1}
    ours, metadata = load_tensors(zoo.folder / model)
    theirs, _ = load_tensors(zoo.folder / "mirror/models/foreign.safetensors")
    assert {name for name in theirs if not ours[name].equal(theirs[name])} == set()
    assert metadata["vocabulary"] == read_vocabulary(vocab).digest
    assert zoo.run(model) == {}
