"""Where a softmax over the vocabulary begins: at the frequencies of what it is to predict."""

import numpy as np
import torch

from pipeline.layers import VocabularyOutput
from pipeline.training.pretraining import Pretraining

SAMPLED_ROWS = 8192
ROWS_AT_ONCE = 256


@torch.no_grad()
def start_at_frequencies(training: Pretraining) -> None:
    """Set the bias of each softmax over the vocabulary to the log frequencies of its labels.

    Labels are counted, one more of each, in rows spread evenly over the instances. Nothing is done
    in a preset or with output_bias: zero; the 2020 reference begins near zero. An LSTM needs it:
    its states saturate in saying which tokens are frequent, which costs thousands of updates (2 x
    512, after 250 steps of 16 reviews: 6.3 nats a held-out token without, 5.1 with). A transformer
    loses by it (2 x 128, mlm, training loss after 1,600 steps of 32 reviews: 3.8 and 4.2).
    """
    if training.spec.reference != "none" or training.plan.output_bias == "zero":
        return
    outputs = {
        name: output
        for name, target in training.model.targets.items()
        if isinstance(output := getattr(target, "output", None), VocabularyOutput)
    }
    counts = {name: np.ones(output.size[0]) for name, output in outputs.items()}
    for rows in _sample(training.instances.lengths) if outputs else ():
        batch = training.collate(0, rows, np.zeros(len(rows), np.int64)).tensors
        for name, seen in counts.items():
            for key, labels in batch.items():
                if key.startswith(f"{name}_") and key.endswith("labels"):
                    seen += np.bincount(labels.numpy(), minlength=len(seen))
    for name, output in outputs.items():
        output.bias.copy_(torch.from_numpy(np.log(counts[name] / counts[name].sum())))


def _sample(lengths: np.ndarray) -> list[np.ndarray]:
    """Return row numbers, spread evenly and cut into batches of like lengths."""
    last = len(lengths) - 1
    rows = np.unique(np.linspace(0, last, min(len(lengths), SAMPLED_ROWS)).astype(np.int64))
    rows = rows[np.argsort(lengths[rows], kind="stable")]
    return np.split(rows, range(ROWS_AT_ONCE, len(rows), ROWS_AT_ONCE))
