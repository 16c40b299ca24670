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
from tests.golden.make_reference_parity import initial_values
from tests.golden.make_uer_generations import MODELS, SEGMENTS, SOURCE
from tests.pipeline.converters.conftest import (
    BERT,
    SMALL,
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
    "bert": [{"norm": "unbiased", "name": "mlm"}, {"read_padding": True, "name": "nsp", "pooler": True}],
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
