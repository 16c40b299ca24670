"""Real tokens per second of the Trainer of transformers on rows of ours; run by bench_pretrain.

Arguments: encoder (JSON), folder of instances, size of the vocabulary, batch size, steps. Batches
are grouped by length and padded to their longest row, masks drawn by its own collator rule.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertForMaskedLM, Trainer, TrainerCallback, TrainingArguments

from pipeline.text.shards import InstanceSet

MASK = 4


class Clock(TrainerCallback):
    """Notes the time after each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *arguments: object, **options: object) -> None:
        """Note the time."""
        self.times.append(time.perf_counter())


def main() -> None:
    """Train some steps and print the speed."""
    encoder, folder, vocab_size, batch_size, steps = (
        json.loads(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:6])
    )  # fmt: skip
    warm = max(1, steps // 2)
    instances = InstanceSet.open(folder)
    rows = instances.rows(np.arange(min(instances.num_rows, batch_size * (warm + steps))))
    ids = rows.ragged("token_ids")
    data = [
        {"input_ids": ids.values[a:b].astype(np.int64), "length": int(b - a)}
        for a, b in zip(ids.offsets[:-1], ids.offsets[1:], strict=True)
    ]
    seen: list[int] = []

    def collate(items: list[dict]) -> dict[str, torch.Tensor]:
        width = max(item["length"] for item in items)
        tokens = torch.zeros(len(items), width, dtype=torch.int64)
        mask = torch.zeros(len(items), width, dtype=torch.int64)
        for row, item in enumerate(items):
            tokens[row, : item["length"]] = torch.from_numpy(item["input_ids"])
            mask[row, : item["length"]] = 1
        chosen = (torch.rand(tokens.shape) < 0.15) & (mask == 1)
        labels = tokens.masked_fill(~chosen, -100)
        seen.append(int(mask.sum()))
        return {
            "input_ids": tokens.masked_fill(chosen, MASK), "attention_mask": mask, "labels": labels,
        }  # fmt: skip

    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=encoder["hidden_size"],
        num_hidden_layers=encoder["num_layers"],
        num_attention_heads=encoder["num_heads"],
        intermediate_size=encoder["feedforward_size"],
        tie_word_embeddings=False,
    )
    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        settings = TrainingArguments(
            out, per_device_train_batch_size=batch_size, max_steps=warm + steps, report_to=[],
            save_strategy="no", disable_tqdm=True, use_cpu=True, remove_unused_columns=False,
            logging_strategy="no",
        )  # fmt: skip
        model = BertForMaskedLM(config)
        Trainer(
            model, settings, data_collator=collate, train_dataset=data, callbacks=[clock]
        ).train()
    seconds = clock.times[-1] - clock.times[warm - 1]
    print(sum(seen[warm : warm + steps]) / seconds)


if __name__ == "__main__":
    main()
