"""Record what the 2020 reference computes in 20 optimiser steps, for every encoder and target.

    python -m tests.golden.make_reference_parity CHECKOUT OUT.json

CHECKOUT: UER-py at commit ba1341a. Weights, batches and sizes are small and come from formulas
below, so that the file holds results only: the loss of each step, and of each tensor afterwards
the numbers that moved furthest. fp32, one thread, dropout 0, the reference's own modules, Adam
(no bias correction, no weight decay) and schedule (first update at rate 0).
"""

import json
import sys
import types
import zlib
from pathlib import Path
from typing import Any

import numpy as np

STEPS, BATCHES, LEARNING_RATE, WARMUP = 20, 4, 1e-3, 0.1
ROWS, WIDTH, VOCAB_SIZE, NUM_LABELS, LONGEST_WORD = 4, 12, 50, 3, 5
SIZES = {"emb_size": 16, "hidden_size": 16, "feedforward_size": 32, "heads_num": 4}
LAYERS, KERNEL_SIZE, BLOCK_SIZE = 3, 3, 3
KEPT = 5

# The reference's names; `_both` behind one: with --bidirectional.
ENCODERS = ["bert", "gpt", "attn", "lstm", "gru", "bilstm", "cnn", "gatedcnn", "rcnn", "crnn"]
ENCODERS += ["lstm_both", "gru_both"]
TARGETS = ["bert", "mlm", "lm", "bilm", "cls", "nsp", "s2s"]
# (encoder, target, embedding, subencoder)
CASES = [(encoder, target, "bert", "none") for encoder in ENCODERS for target in TARGETS]
CASES += [("lstm", "lm", "word", kind) for kind in ("none", "avg", "lstm", "cnn")]


def initial_values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the values a tensor of the reference starts with: N(0, 0.2), so that all parts matter.

    NumPy's RandomState, whose numbers never change between versions, seeded by the name.
    """
    if "gamma" in name or "beta" in name:
        return np.full(shape, 1.0 if "gamma" in name else 0.0, np.float32)
    return (np.random.RandomState(zlib.crc32(name.encode())).randn(*shape) * 0.2).astype("f4")


def batch(number: int) -> dict[str, np.ndarray]:
    """Return batch `number`: (ROWS, WIDTH) or (ROWS,) int64 arrays.

    src, seg: padded rows, of which each second has two segments. masked: src with some tokens
    hidden, chosen: their labels (0 elsewhere). next, previous: labels of language models.
    target: target texts. is_random, label: of rows. words: characters of all words of the
    vocabulary, (VOCAB_SIZE, LONGEST_WORD), the same in each batch.
    """
    random = np.random.RandomState(number)
    lengths = random.randint(4, WIDTH + 1, ROWS)
    lengths[0] = WIDTH - 1
    inside = np.arange(WIDTH) < lengths[:, None]
    tokens = random.randint(5, VOCAB_SIZE, (ROWS, WIDTH))
    src = np.where(inside, tokens, 0)
    second = (np.arange(WIDTH) >= 3) & (np.arange(ROWS) % 2 == 0)[:, None]
    hidden = inside & (random.rand(ROWS, WIDTH) < 0.3)
    hidden[:, 1] = True
    following = np.where(inside, np.roll(src, -1, 1), 0)
    following[np.arange(ROWS), lengths - 1] = 3
    preceding = np.where(inside, np.roll(src, 1, 1), 0)
    preceding[:, 0] = 2
    written = np.arange(WIDTH) < random.randint(2, WIDTH + 1, ROWS)[:, None]
    characters = np.random.RandomState(99)
    words = characters.randint(1, 20, (VOCAB_SIZE, LONGEST_WORD))
    spelled = np.arange(LONGEST_WORD) < characters.randint(1, LONGEST_WORD + 1, VOCAB_SIZE)[:, None]
    return {
        "src": src,
        "seg": inside * (1 + second),
        "masked": np.where(hidden, 4, src),
        "chosen": np.where(hidden, src, 0),
        "next": following,
        "previous": preceding,
        "target": np.where(written, random.randint(5, VOCAB_SIZE, (ROWS, WIDTH)), 0),
        "is_random": random.randint(0, 2, ROWS),
        "label": random.randint(0, NUM_LABELS, ROWS),
        "words": words * spelled,
    }


def inputs(target: str, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, Any]:
    """Return (token ids, labels as the reference's target wants them) of a batch."""
    return {
        "bert": (arrays["masked"], (arrays["chosen"], arrays["is_random"])),
        "mlm": (arrays["masked"], arrays["chosen"]),
        "lm": (arrays["src"], arrays["next"]),
        "bilm": (arrays["src"], (arrays["next"], arrays["previous"])),
        "cls": (arrays["src"], arrays["label"]),
        "nsp": (arrays["src"], arrays["is_random"]),
        "s2s": (arrays["src"], arrays["target"]),
    }[target]


def summary(name: str, values: np.ndarray) -> list[Any]:
    """Return [mean distance from the start, then [position, value] of the KEPT furthest]."""
    moved = np.abs(values - initial_values(name, values.shape)).reshape(-1)
    places = np.sort(np.argsort(-moved, kind="stable")[:KEPT])
    flat = values.reshape(-1)
    furthest = [[int(place), float(f"{flat[place]:.7g}")] for place in places]
    return [float(f"{moved.mean():.5g}"), *furthest]


def settings(encoder: str, target: str, embedding: str, subencoder: str) -> types.SimpleNamespace:
    """Return the options that the reference's modules read."""
    words = ["".join(chr(0x4E00 + c) for c in row if c) for row in batch(0)["words"].tolist()]
    characters = {chr(0x4E00 + number): number for number in range(20)}
    return types.SimpleNamespace(
        **SIZES,
        encoder=encoder.removesuffix("_both"),
        bidirectional=encoder.endswith("_both"),
        target=target,
        embedding=embedding,
        subword_type="none" if subencoder == "none" else "char",
        subencoder=subencoder,
        layers_num=LAYERS,
        sub_layers_num=LAYERS,
        kernel_size=KERNEL_SIZE,
        block_size=BLOCK_SIZE,
        dropout=0.0,
        labels_num=2 if target == "nsp" else NUM_LABELS,
        vocab=_Words(i2w=words),
        sub_vocab=_Words(w2i=characters),
    )


class _Words(types.SimpleNamespace):
    def __len__(self) -> int:
        return len(next(iter(vars(self).values())))


def run(case: tuple[str, str, str, str]) -> dict[str, Any]:
    """Return {losses, tensors} of the reference after STEPS steps."""
    import torch
    from uer.model_builder import build_model
    from uer.utils.optimizers import AdamW, WarmupLinearSchedule

    model = build_model(settings(*case))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(initial_values(name, tuple(parameter.shape))))
    optimizer = AdamW(model.parameters(), lr=LEARNING_RATE, correct_bias=False)
    schedule = WarmupLinearSchedule(optimizer, warmup_steps=STEPS * WARMUP, t_total=STEPS)
    losses = []
    for step in range(STEPS):
        arrays = batch(step % BATCHES)
        src, labels = inputs(case[1], arrays)
        given = tuple(map(torch.from_numpy, labels)) if isinstance(labels, tuple) else None
        given = torch.from_numpy(labels) if given is None else given
        outputs = model(torch.from_numpy(src), given, torch.from_numpy(arrays["seg"]))
        loss = outputs[0] + outputs[1] if case[1] in ("bert", "bilm") else outputs[0]
        losses.append(float(f"{loss.item():.7g}"))
        model.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    tensors = {name: summary(name, p.detach().numpy()) for name, p in model.named_parameters()}
    return {"losses": losses, "tensors": tensors}


def accept_old_signatures() -> None:
    """Let the reference's Adam call in-place additions with the factor in front, as torch once had.

    x.add_(factor, y) is x.add_(y, alpha=factor); addcmul_ and addcdiv_ likewise.
    """
    import torch

    def wrapped(original: Any, keyword: str) -> Any:
        def call(tensor: Any, first: Any, *others: Any, **options: Any) -> Any:
            if others and isinstance(first, float):
                return original(tensor, *others, **{keyword: first})
            return original(tensor, first, *others, **options)

        return call

    torch.Tensor.add_ = wrapped(torch.Tensor.add_, "alpha")
    torch.Tensor.addcmul_ = wrapped(torch.Tensor.addcmul_, "value")
    torch.Tensor.addcdiv_ = wrapped(torch.Tensor.addcdiv_, "value")


def main(checkout: str, out: str) -> None:
    """Write the file."""
    import torch

    sys.path.insert(0, checkout)
    torch.set_num_threads(1)
    accept_old_signatures()
    lines = [f"{json.dumps('/'.join(case))}: {json.dumps(run(case))}" for case in CASES]
    Path(out).write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
