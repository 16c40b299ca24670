"""What recipes will take: sizes of text known so far, and what each stage makes of them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts import read_json_artifact
from pipeline.catalog import Catalog
from pipeline.errors import PipelineError
from pipeline.recipes import Recipe
from pipeline.sources import DEFAULT_MIRROR, PARTS, Source
from pipeline.text.locate import Places, locate

# Measured on Chinese reviews: a token is a character but for Latin words and numbers.
TOKENS_PER_CHARACTER = 0.97
DATA_TOKENS_PER_SECOND = 2_000_000
SAMPLE_BYTES = 1 << 20
# Weights, gradients, two moments of AdamW; gradients of the tree: log2(micro_batches) + 1 more.
COPIES_OF_WEIGHTS = 4
PARALLEL_SHARE = 0.92  # of n ranks, what n - 1 further ones add (measured: 1.8 to 1.98 of 2)
JOB_SECONDS = 4.0  # starting Python, torch and Snakemake's own work


@dataclass(frozen=True)
class TextSize:
    """How much text there is, how its rows are long, and how that is known."""

    tokens: int
    rows: int
    lengths: list[int]
    known_from: str


@dataclass(frozen=True)
class StageCost:
    """One line of the plan."""

    stage: str
    jobs: int
    tokens: int
    seconds: float
    memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True)
class Speed:
    """Tokens a second on one rank, and the process's peak, of pre-training or fine-tuning."""

    tokens_per_second: float
    peak_bytes: int


class Texts:
    """Sizes of corpora and data sets, from the best that is at hand."""

    def __init__(self, catalog: Catalog, results: Path, data: Path, mirror: Path | None):
        self.catalog, self.results, self.data = catalog, results, data
        self.places = Places(mirror or DEFAULT_MIRROR, data / "datasets", data)

    def instances(self, name: str) -> TextSize:
        """Return the size of an instance set: counted, from its text, or assumed."""
        section = self.catalog.instances[name]
        manifest = self.results / "2_instances" / name / "manifest.json"
        if manifest.exists():
            record = read_json_artifact(manifest)
            tokens, rows = record["tokens"], max(1, record["rows"])
            return TextSize(tokens, rows, [max(1, tokens // rows)], "counted in instances")
        sizes = [self._corpus(corpus) for corpus in section.corpora]
        known = [size for size in sizes if size]
        if len(known) < len(sizes):
            return TextSize(0, 0, [section.seq_length], "text not at hand, full rows assumed")
        lengths = [n for size in known for n in size.lengths]
        cut = [min(n, section.seq_length) for n in lengths]
        rows_each = sum(math.ceil(n / section.seq_length) for n in lengths) / len(lengths)
        rows = round(sum(size.rows for size in known) * rows_each)
        return TextSize(sum(size.tokens for size in known), rows, cut, "estimated from text")

    def part(self, dataset: str, part: str) -> TextSize | None:
        """Return the size of a part of a data set."""
        for path in sorted((self.data / "datasets" / dataset).glob(f"{part}.*")):
            return _measure([path])
        section = self.catalog.datasets[dataset]
        if section.files and (source := getattr(section.files, part)):
            return self._files([source])
        if section.split and section.split.sources:
            whole = self._files(section.split.sources)
            share = section.split.shares.get(part, 0)  # type: ignore[call-overload]
            return whole and TextSize(
                round(whole.tokens * share), round(whole.rows * share), whole.lengths, ""
            )
        return None

    def _corpus(self, name: str) -> TextSize | None:
        fetched = self.data / "corpora" / f"{name}.txt"
        if fetched.exists():
            return _measure([fetched])
        sizes = [
            self.part(source.dataset, source.part or PARTS[0])
            if source.dataset
            else self._files([source])
            for source in self.catalog.corpora[name].sources
        ]
        known = [size for size in sizes if size]
        if len(known) < len(sizes):
            return None
        lengths = [length for size in known for length in size.lengths]
        tokens, rows = (sum(getattr(size, key) for size in known) for key in ("tokens", "rows"))
        return TextSize(tokens, rows, lengths, "")

    def _files(self, sources: list[Source]) -> TextSize | None:
        # Nothing is downloaded for a plan.
        if any(s.url and not (s.path and self.catalog.place(s.path).exists()) for s in sources):
            return None
        try:
            return _measure([locate(source, self.places).path for source in sources])
        except PipelineError:
            return None


def _measure(paths: list[Path]) -> TextSize | None:
    """Return the size of text files, by their bytes and a sample from the beginning of each."""
    tokens = rows = 0
    lengths: list[int] = []
    for path in paths:
        with path.open("rb") as file:
            sample = file.read(SAMPLE_BYTES)
        lines = [line for line in sample.decode("utf-8", "ignore").split("\n") if line.strip()]
        counts = [max(1, round(len(line) * TOKENS_PER_CHARACTER)) for line in lines]
        scale = path.stat().st_size / max(1, len(sample))
        tokens += round(sum(counts) * scale)
        rows += round(len(lines) * scale)
        lengths += counts[:2000]
    return TextSize(tokens, rows, lengths, "") if rows else None


class Plan:
    """The stages of one recipe."""

    def __init__(self, catalog: Catalog, texts: Texts, recipe: str, parameters: int):
        self.catalog, self.texts, self.name = catalog, texts, recipe
        self.recipe = catalog.zoo[recipe]
        self.weights = parameters * 4
        self.size = texts.instances(self.recipe.instances) if self.recipe.instances else None

    @property
    def trained_tokens(self) -> int:
        """Return how many tokens pre-training sees, repeats included."""
        if not (self.size and self.recipe.optimization):
            return 0
        plan = self.recipe.optimization
        mean = sum(self.size.lengths) / len(self.size.lengths)
        return round(plan.total_steps * plan.batch_size * mean)

    def costs(self, pretraining: Speed, finetuning: Speed, ranks: int) -> Iterator[StageCost]:
        """Yield the stages in flow order."""
        if self.size and self.recipe.instances and self.recipe.optimization:
            yield from self._data(self.size)
            yield self._training(self.recipe, pretraining, ranks)
            yield StageCost("average", 1, 0, JOB_SECONDS, 2 * self.weights, self.weights)
        yield from self._tuning(finetuning)

    def _training(self, recipe: Recipe, speed: Speed, ranks: int) -> StageCost:
        jobs, seen = len(recipe.steps), self.trained_tokens
        seconds = seen / speed.tokens_per_second / (1 + (ranks - 1) * PARALLEL_SHARE)
        memory = max(speed.peak_bytes, COPIES_OF_WEIGHTS * self.weights) * ranks
        # Weights with two moments: in two resume points, and in each checkpoint that is kept.
        kept = 3 * jobs if recipe.keep_checkpoints == "all" else recipe.average.last
        disk = (kept + 2 * 3) * self.weights
        return StageCost("pretrain", jobs, seen, seconds + JOB_SECONDS * jobs, memory, disk)

    def _data(self, size: TextSize) -> Iterator[StageCost]:
        section = self.catalog.instances[str(self.recipe.instances)]
        seconds = size.tokens / DATA_TOKENS_PER_SECOND
        yield StageCost("vocab", 1, size.tokens, seconds + 1, 300 << 20, 1 << 20)
        disk = size.tokens * 2 + size.rows * 8
        jobs = section.shards + 1
        yield StageCost("instances", jobs, size.tokens, seconds + jobs, 300 << 20, disk)

    def _tuning(self, speed: Speed) -> Iterator[StageCost]:
        runs = self.catalog.runs(self.name)
        tokens = scored = 0
        for run in runs:
            spec = self.catalog.finetune_spec(*run)
            train, test = (self.texts.part(run.dataset, part) for part in ("train", "test"))
            rates = spec.get("learning_rate", 0)
            tries = len(rates) if isinstance(rates, list) else 1
            tokens += _seen(spec, train, spec.get("train_rows")) * spec.get("epochs", 3) * tries
            scored += _seen(spec, test, None)
        if runs:
            seconds = tokens / speed.tokens_per_second + JOB_SECONDS * len(runs)
            disk = self.weights * len(runs)
            yield StageCost("finetune", len(runs), tokens, seconds, speed.peak_bytes, disk)
            # A forward pass is about a third of an update.
            seconds = scored / speed.tokens_per_second / 3 + JOB_SECONDS * len(runs)
            yield StageCost("evaluate", len(runs), scored, seconds, speed.peak_bytes, 1 << 20)
        yield StageCost("report", 1, 0, JOB_SECONDS, 300 << 20, 2 << 20)


def add_up(catalog: Catalog, plans: Mapping[str, Sequence[StageCost]]) -> list[StageCost]:
    """Return the stages of several recipes together; what they share is made once."""
    made: dict[tuple[str, str | None], StageCost] = {}
    for recipe, costs in plans.items():
        shared = {
            "vocab": catalog.vocabulary_of(recipe),
            "instances": catalog.zoo[recipe].instances,
            "report": "",
        }
        made |= {(cost.stage, shared.get(cost.stage, recipe)): cost for cost in costs}
    total = []
    for stage in dict.fromkeys(stage for stage, _ in made):
        own = [cost for (other, _), cost in made.items() if other == stage]
        jobs, tokens = sum(cost.jobs for cost in own), sum(cost.tokens for cost in own)
        seconds, disk = sum(cost.seconds for cost in own), sum(cost.disk_bytes for cost in own)
        memory = max(cost.memory_bytes for cost in own)
        total.append(StageCost(stage, jobs, tokens, seconds, memory, disk))
    return total


def _seen(spec: dict[str, Any], size: TextSize | None, most: int | None) -> int:
    """Return the tokens of a part's rows, cut at seq_length."""
    if size is None:
        return 0
    limit = spec.get("seq_length", 128)
    mean = sum(min(n, limit) for n in size.lengths) / len(size.lengths)
    return round(min(size.rows, most or size.rows) * mean)
