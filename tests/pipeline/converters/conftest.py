"""Small models of all kinds in our format, and the stage as a function."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.__main__ import main
from pipeline.model import build_model, initialize
from pipeline.spec import ArchitectureSpec, Component
from pipeline.subencoders import spell
from pipeline.text.vocabulary import SPECIAL_TOKENS, read_vocabulary
from pipeline.training.checkpoint import load_tensors, save_tensors

TOKENS = [*SPECIAL_TOKENS, *"的一是不了人我在有他这中大来上国个到说"]
SMALL = {"hidden_size": 8, "num_layers": 2}
BERT = {"name": "transformer", "num_heads": 2, "feedforward_size": 16, **SMALL}


@dataclass(frozen=True)
class Outcome:
    """What a run of the stage came to."""

    code: int
    lines: list[str]

    @property
    def only_line(self) -> str:
        """The one line on stderr."""
        assert len(self.lines) == 1, self.lines
        return self.lines[0]


def no_trace(out: Path) -> bool:
    """Return whether a failed stage left nothing behind: not the output, no temporary file."""
    return not out.exists() and not [p for p in out.parent.glob(".*") if out.name in p.name]


@pytest.fixture
def convert(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the stage in this process: convert("uer", "native", source, out, "--vocab", v)."""

    def run(origin: str, goal: str, source: Path, out: Path, *more: object) -> Outcome:
        capfd.readouterr()
        arguments = ["--from", origin, "--to", goal, "--in", source, "--out", out, *more]
        code = main(["convert", *map(str, arguments)])
        captured = capfd.readouterr()
        assert captured.out == ""
        return Outcome(code, captured.err.splitlines())

    return run


@pytest.fixture
def vocab(tmp_path: Path) -> Path:
    """A vocabulary of 24 tokens."""
    path = tmp_path / "given_vocab.txt"
    path.write_text("".join(f"{token}\n" for token in TOKENS), encoding="utf-8")
    return path


MakeModel = Callable[..., Path]


@pytest.fixture
def make_model(tmp_path: Path, vocab: Path) -> MakeModel:
    """Write a model with random weights: make_model(encoder, targets, embedding="word", ...)."""
    made = iter(range(1000))

    def make(
        encoder: Mapping[str, Any] = BERT,
        targets: Sequence[str | dict[str, Any]] = ("mlm", "nsp"),
        embedding: Any = "bert",
        reference: str = "none",
        vocabulary: Path = vocab,
        tokenizer: str = "bert",
        subencoder: str | None = None,
        **metadata: Any,
    ) -> Path:
        words = read_vocabulary(vocabulary)
        network = {"embedding": embedding, "encoder": encoder, "subencoder": subencoder}
        architecture = ArchitectureSpec.model_validate(network)
        sections = [{"name": t} if isinstance(t, str) else t for t in targets]
        parts = [Component.model_validate(section) for section in sections]
        characters = None if subencoder is None else spell(words)
        model = build_model(architecture, words.token_ids, parts, reference, characters)
        initialize(model, 7)
        shake(dict(model.named_parameters()))
        path = tmp_path / f"model_{next(made)}.safetensors"
        save_tensors(
            path,
            model.state_dict(),
            {
                "stamp": {"stage": "pretrain", "format": 1, "settings": {}},
                "architecture": architecture.model_dump(mode="json"),
                "targets": sections,
                "reference": reference,
                "tokenizer": tokenizer,
                "lowercase": True,
                "special_tokens": True,
                "vocabulary": words.digest,
                "token_ids": asdict(words.token_ids),
                **metadata,
            },
        )
        return path

    return make


def shake(parameters: Mapping[str, Tensor]) -> None:
    """Move every weight, so that no norm is 1 and no bias 0."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name in sorted(parameters):
            parameters[name] += 0.1 * torch.randn(parameters[name].shape, generator=generator)


def tensors_of(model: Path) -> dict[str, Tensor]:
    """Return the tensors of a model file or directory of ours."""
    return load_tensors(model / "model.safetensors" if model.is_dir() else model)[0]


def metadata_of(model: Path) -> dict[str, Any]:
    """Return the metadata of a model file or directory of ours."""
    return load_tensors(model / "model.safetensors" if model.is_dir() else model)[1]


def assert_same_bits(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> None:
    """Fail unless names, types and bits are equal."""
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].dtype == right[name].dtype, name
        assert torch.equal(left[name], right[name]), name
