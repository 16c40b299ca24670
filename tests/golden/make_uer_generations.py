"""Record names, shapes and hidden states of the reference's four generations of checkpoints.

    python -m tests.golden.make_uer_generations REPOSITORY OUT.json

REPOSITORY: a git clone of UER-py, bare or not. The code of each generation builds small models and
computes hidden states (it needs the package six); weights and batch come from the formulas of
make_reference_parity.py.
"""

import json
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np

from tests.golden.make_reference_parity import initial_values

# The last commit of each, as far as names go.
GENERATIONS = {
    "A": "ba1341a19b22bcbff6b4d113f9a73b0cb44747d6",
    "B": "f55e323307c3750024c8c2ae31ed9fb7f82257ea",
    "C": "b80a5e2c1df25f3ea819a4e7f3717f74e1ecdc96",
    "D": "5743050cc41f0f21986c9f938db5ac1726052629",
}
VOCAB_SIZE, LABELS, SIZE, LAYERS = 24, 3, 8, 2
# Kind of model -> (encoder, targets) by the names of 2020.
MODELS = {
    "bert": ("bert", ["mlm", "nsp"]),
    "gpt": ("gpt", ["lm"]),
    "lstm": ("lstm", ["lm"]),
    "elmo": ("bilstm", ["bilm"]),
    "gru": ("gru", ["lm"]),
    "cls": ("bert", ["cls"]),
}
SOURCE = np.array([[2, 9, 11, 3, 20, 3], [2, 5, 23, 3, 0, 0]])
SEGMENTS = np.array([[1, 1, 1, 1, 2, 2], [1, 1, 1, 1, 0, 0]])


def options(generation: str, encoder: str, targets: list[str]) -> types.SimpleNamespace:
    """Return what the code of a generation wants to know."""
    words = types.SimpleNamespace(i2w=["x"] * VOCAB_SIZE)
    vocab = type("Vocab", (list,), {})(words.i2w)
    values: dict[str, Any] = {
        "emb_size": SIZE, "hidden_size": SIZE, "feedforward_size": 2 * SIZE, "heads_num": 2,
        "layers_num": LAYERS, "kernel_size": 3, "block_size": 2, "dropout": 0.0,
        "bidirectional": False, "labels_num": LABELS, "subword_type": "none", "vocab": vocab,
        "tokenizer": types.SimpleNamespace(vocab=vocab), "max_seq_length": 512,
        "remove_embedding_layernorm": False, "layernorm_positioning": "post",
        "layernorm": "normal", "feed_forward": "dense", "relative_position_embedding": False,
        "rotary_position_embedding": False, "remove_transformer_bias": False,
        "remove_attention_scale": False, "parameter_sharing": False,
        "has_residual_attention": False,
        "factorized_embedding_parameterization": False, "hidden_act": "gelu", "decoder": None,
        "tie_weights": False, "share_embedding": False, "has_lmtarget_bias": True,
        "prefix_lm_loss": False, "pooling": "first", "data_processor": "", "target": targets,
        "use_lora": False, "deep_init": False,
    }  # fmt: skip
    if generation == "A":
        both = {("mlm", "nsp"): "bert"}
        values |= {"encoder": encoder, "target": both.get(tuple(targets), targets[0])}
        return types.SimpleNamespace(**values, embedding="bert")
    later = {"bert": ("transformer", "fully_visible"), "gpt": ("transformer", "causal")}
    name, mask = later.get(encoder, (encoder, "fully_visible"))
    embedding = ["word", "pos", "seg"] if generation in "CD" else "word_pos_seg"
    targets = [{"nsp": "sp"}.get(target, target) for target in targets]
    values |= {"encoder": name, "mask": mask, "target": targets, "embedding": embedding}
    return _Options(**values)


class _Options(types.SimpleNamespace):
    """Its code asks `"label_smoothing" in args`."""

    def __contains__(self, name: str) -> bool:
        return name in vars(self)


def record(generation: str) -> dict[str, Any]:
    """Return model -> {shapes, hidden} as the generation's code on the path has them."""
    import torch
    from uer.model_builder import build_model

    result = {}
    for kind, (encoder, targets) in MODELS.items():
        model = build_model(options(generation, encoder, targets)).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.from_numpy(initial_values(name, tuple(parameter.shape))))
            segments = torch.from_numpy(SEGMENTS)
            emb = model.embedding(torch.from_numpy(SOURCE), segments)
            hidden = model.encoder(emb, segments)
        result[kind] = {
            "shapes": {name: list(p.shape) for name, p in model.state_dict().items()},
            "hidden": [float(f"{value:.6g}") for value in hidden.flatten().tolist()],
        }
    return result


def main(repository: str, out: str) -> None:
    """Write the file; each generation's code runs in a process of its own."""
    result = {}
    for generation, commit in GENERATIONS.items():
        with tempfile.TemporaryDirectory() as folder:
            archive = subprocess.run(
                ["git", "-C", repository, "archive", commit, "uer", "models/*.json"],
                capture_output=True,
                check=True,
            )
            subprocess.run(["tar", "x", "-C", folder], input=archive.stdout, check=True)
            # It reads files of its own under the current folder.
            paths = [folder, str(Path(__file__).parents[2])]
            code = f"import sys, json; sys.path[:0] = {paths!r}\n"
            code += "from tests.golden.make_uer_generations import record\n"
            code += f"print(json.dumps(record({generation!r})))"
            done = subprocess.run(
                [sys.executable, "-c", code],
                stdout=subprocess.PIPE,
                check=True,
                text=True,
                cwd=folder,
            )
            result[generation] = json.loads(done.stdout.splitlines()[-1])
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in result.items()]
    Path(out).write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
