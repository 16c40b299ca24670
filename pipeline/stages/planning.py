"""What recipes will take: what each stage makes of the text that is known so far."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.catalog import Catalog
from pipeline.recipes import Recipe
from pipeline.sources import PARTS
from pipeline.spec import FinetuneSpec
from pipeline.stages.text_sizes import Texts, TextSize

# Measured, on one process: counting and cutting text, and with a segmenter (tokenizer word).
DATA_TOKENS_PER_SECOND, SEGMENTED_TOKENS_PER_SECOND = 10_000_000, 100_000
# Weights, gradients, two moments of AdamW; gradients of the tree: log2(micro_batches) + 1 more.
COPIES_OF_WEIGHTS = 4
FORWARD_SHARE = 1 / 3  # of an update's time, what a forward pass takes
DATA_JOB_SECONDS = 0.3  # starting Python without torch
# Starting Python and torch where that is not measured, and jobs beyond it, in multiples of it.
START_SECONDS = 1.5
STARTS_OF_PRETRAIN, STARTS_OF_TASKS = 3.0, 2.0


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
    """How fast pre-training, on all ranks together, or fine-tuning is."""

    tokens_per_second: float
    peak_bytes: int
    """Peak memory of one process."""
    start_seconds: float = START_SECONDS
    """From the start of Python until torch is there."""


class Plan:
    """The stages of one recipe."""

    def __init__(self, catalog: Catalog, texts: Texts, recipe: str, parameters: int):
        self.catalog, self.texts, self.name = catalog, texts, recipe
        self.recipe = catalog.zoo[recipe]
        self.weights = parameters * 4
        self.size = texts.instances(self.recipe.instances) if self.recipe.instances else None
        self.vocabulary = catalog.vocabulary_of(recipe)
        datasets = catalog.datasets_of(recipe)
        self.parts = {name: [texts.part(name, part) for part in PARTS] for name in datasets}
        self._learning_bytes = COPIES_OF_WEIGHTS * self.weights

    @property
    def left_out(self) -> list[str]:
        """Return the data sets whose training rows are not at hand: their tokens do not count."""
        return [name for name, (train, *_) in self.parts.items() if train is None]

    def job_names(self) -> set[tuple[str, str]]:
        """Return (stage, name below its folder of benchmarks) of the jobs of which one is kept."""
        names = {("vocab", self.vocabulary), ("average", self.name)}
        if self.recipe.instances:
            shards = range(self.catalog.instances[self.recipe.instances].shards)
            parts = ["join", *(f"shard_{number:05d}" for number in shards)]
            names |= {("instances", f"{self.recipe.instances}/{part}") for part in parts}
        names |= {("pretrain", f"{self.name}/step_{step:08d}") for step in self.recipe.steps}
        for run in self.catalog.runs(self.name):
            job = f"{run.recipe}/{run.dataset}/{run.start}_seed_{run.seed}"
            names |= {("finetune", job), ("evaluate", job)}
        return names

    @property
    def trained_tokens(self) -> int:
        """Return how many tokens pre-training sees, repeats included."""
        if not (self.size and self.recipe.optimization):
            return 0
        plan = self.recipe.optimization
        return round(plan.total_steps * plan.batch_size * self.size.mean_length)

    def costs(self, pretraining: Speed, finetuning: Speed, ranks: int) -> Iterator[StageCost]:
        """Yield the stages in flow order."""
        if self.size and self.recipe.instances and self.recipe.optimization:
            yield from self._data(self.size)
            yield self._training(self.recipe, pretraining, ranks)
            start = pretraining.start_seconds
            yield StageCost("average", 1, 0, start, 2 * self.weights, self.weights)
        yield from self._tuning(finetuning)
        yield StageCost("report", 1, 0, DATA_JOB_SECONDS, 300 << 20, 2 << 20)

    def _training(self, recipe: Recipe, speed: Speed, ranks: int) -> StageCost:
        jobs, seen = len(recipe.steps), self.trained_tokens
        seconds = seen / speed.tokens_per_second
        memory = max(speed.peak_bytes, self._learning_bytes) * ranks
        # Weights with two moments: in two resume points, and in each checkpoint that is kept.
        kept = 3 * jobs if recipe.keep_checkpoints == "all" else recipe.average.last
        disk = (kept + 2 * 3) * self.weights
        seconds += jobs * STARTS_OF_PRETRAIN * speed.start_seconds
        return StageCost("pretrain", jobs, seen, seconds, memory, disk)

    def _data(self, size: TextSize) -> Iterator[StageCost]:
        section = self.catalog.instances[str(self.recipe.instances)]
        segmented = self.catalog.vocabularies[self.vocabulary].tokenizer == "word"
        rate = SEGMENTED_TOKENS_PER_SECOND if segmented else DATA_TOKENS_PER_SECOND
        seconds = size.tokens / rate
        start = DATA_JOB_SECONDS
        yield StageCost("vocab", 1, size.tokens, seconds + start, 300 << 20, 1 << 20)
        disk = size.tokens * 2 + size.rows * 8
        jobs = section.shards + 1
        yield StageCost("instances", jobs, size.tokens, seconds + jobs * start, 300 << 20, disk)

    def _tuning(self, speed: Speed) -> Iterator[StageCost]:
        # A baseline's runs are in its own plan.
        runs = [run for run in self.catalog.runs(self.name) if run.recipe == self.name]
        if not runs:
            return
        trained = judged = scored = 0
        for run in runs:
            spec = FinetuneSpec(**self.catalog.finetune_spec(*run))
            train, dev, test = self.parts[run.dataset]
            rates = spec.learning_rate if isinstance(spec.learning_rate, list) else [None]
            passes = spec.epochs * (len(rates) + (spec.folds or 1) - 1)
            trained += passes * _seen(spec, train, spec.train_rows)
            judged += passes * _seen(spec, dev, spec.dev_rows)
            scored += _seen(spec, test)
        rate, start = speed.tokens_per_second, STARTS_OF_TASKS * speed.start_seconds * len(runs)
        seconds = (trained + judged * FORWARD_SHARE) / rate + start
        disk, memory = self.weights * len(runs), max(speed.peak_bytes, self._learning_bytes)
        yield StageCost("finetune", len(runs), trained, seconds, memory, disk)
        seconds = scored * FORWARD_SHARE / rate + start
        yield StageCost("evaluate", len(runs), scored, seconds, memory, 1 << 20)


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


def _seen(spec: FinetuneSpec, size: TextSize | None, most: int | None = None) -> int:
    """Return the tokens of a part's rows, cut at seq_length."""
    if size is None:
        return 0
    mean = sum(min(n, spec.seq_length) for n in size.lengths) / len(size.lengths)
    return round(min(size.rows, most or size.rows) * mean)
