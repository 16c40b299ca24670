"""What a report shows, as plain records: one for each recipe, one for each scored run.

The records are also the report's JSON form, which a later report can take in again.
"""

import math
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from pipeline.errors import DataError
from pipeline.recipes import Start
from pipeline.registry import describe
from pipeline.report.scores import Summary, summarize
from pipeline.report.settings import ReportedRecipe


def _number(value: Any) -> Any:
    """JSON has no NaN: an undefined figure arrives as null or as its name."""
    return math.nan if value is None or value == "NaN" else value


Figure = Annotated[float, BeforeValidator(_number)]
Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], values: dict[str, Any], where: str) -> Model:
    """Return a record of `values`. Raises DataError, one line for each problem."""
    try:
        return model(**values)
    except ValidationError as error:
        raise DataError(*describe(error, where)) from None


class Record(BaseModel):
    """Base of the records: frozen, NaN survives JSON as a string."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")


Seen = Literal["without_repeats", "in_corpus", "in_either"]


class Apart(Record):
    """Scores without the rows that were seen before."""

    repeats: int
    """Rows left out."""
    scored: int
    metrics: dict[str, Figure]


class Metrics(Record):
    """A metrics file of the stage evaluate."""

    task: str
    main_metric: str | None
    """None: the rows have no labels."""
    metrics: dict[str, Figure]
    counts: dict[str, int | dict[str, int]]
    """Rows, scored, skipped by reason, and odd things about scored rows."""
    model: str
    """SHA-256 of the weights that were scored."""
    data: str
    """Digest of the rows they were scored on."""
    labels: list[str] = []
    confusion: list[list[int]] = []
    """Rows are gold labels, columns predicted ones."""
    without_repeats: Apart | None = None
    """Without the rows whose texts stand in the training data."""
    in_corpus: Apart | None = None
    """Without the rows of which a text stands in the corpora of pre-training; None: not looked."""
    in_either: Apart | None = None
    """Without the rows of both kinds."""


class Mistake(Record):
    """A misjudged row, made printable."""

    text: str
    gold: str
    predicted: str
    confidence: float
    """Probability of the predicted label, 0 where the file does not tell."""


class Epoch(Record):
    """One epoch of fine-tuning at one learning rate."""

    learning_rate: float
    epoch: int
    loss: Figure
    score: Figure


class Tuning(Record):
    """How a model was fine-tuned: what was chosen on dev and all that was tried."""

    metric: str
    score: Figure
    learning_rate: float
    epoch: int
    history: list[Epoch] = []


class Run(Record):
    """One fine-tuned model on one data set."""

    dataset: str
    start: Start
    seed: int
    place: str
    """Metrics file, below the results folder."""
    digest: str = ""
    """Of the metrics file."""
    result: Metrics | None = None
    """None: the file is missing."""
    tuning: Tuning | None = None
    """None: the scored model was not at hand, so that the score stands unchecked."""
    mistakes: list[Mistake] = []

    @property
    def score(self) -> float | None:
        """The main metric: a fraction of one, NaN where undefined, None where missing."""
        return self.metric("")

    @property
    def points(self) -> float | None:
        """The main metric in points."""
        return None if self.score is None else 100 * self.score

    @property
    def unseen(self) -> float | None:
        """The main metric on texts that do not stand in the training data, in points."""
        value = self.score_apart("without_repeats")
        return None if value is None else 100 * value

    def apart(self, seen: Seen) -> Apart | None:
        """Return the scores without the rows seen somewhere, None where nobody looked."""
        return getattr(self.result, seen) if self.result else None

    def score_apart(self, seen: Seen) -> float | None:
        """Return the main metric without the rows seen somewhere."""
        apart = self.apart(seen)
        return apart.metrics.get(self.result.main_metric or "") if apart and self.result else None

    def metric(self, name: str) -> float | None:
        """Return a metric by name (empty: the main one)."""
        if self.result is None:
            return None
        return self.result.metrics.get(name or self.result.main_metric or "")

    def dev_metric(self, name: str) -> float | None:
        """Return the metric on dev by which the model was chosen, None for another one."""
        tuning = self.tuning
        return tuning.score if tuning and name in ("", tuning.metric) else None


class Point(Record):
    """A line of the training metrics."""

    step: int
    tokens: int
    loss: Figure
    learning_rate: Figure = math.nan


class HeldOut(Record):
    """Losses on held-out documents at a checkpoint."""

    step: int
    tokens: int
    loss: Figure
    metrics: dict[str, Figure] = {}


class Training(Record):
    """A pre-training run as far as its checkpoints tell."""

    settings: dict[str, Any] = {}
    targets: list[str] = []
    encoder: str = ""
    step: int = 0
    total_steps: int = 0
    tokens: int = 0
    """Real tokens trained on, padding left out."""
    epochs: float = 0.0
    loss: Figure = math.nan
    metrics: dict[str, Figure] = {}
    curve: list[Point] = []
    held_out: list[HeldOut] = []


class Neighbours(Record):
    """The tokens nearest to a word, by itself or in a sentence."""

    word: str
    sentence: str = ""
    """Empty: by itself."""
    neighbours: dict[str, Figure]
    """Token -> cosine, the nearest first."""


class Gap(Record):
    """What a masked language model puts into a gap of a text."""

    text: str
    mask: int
    """Which gap of the text, from 1."""
    answer: str = ""
    """What was hidden there, where that is known."""
    predictions: dict[str, Figure]
    """Token -> probability, the likeliest first."""


class Continuation(Record):
    """How a language model goes on."""

    prompt: str
    continuation: str


class TagShare(Record):
    """The words of one tag: which share of their neighbours has it too."""

    tag: str
    words: int
    share: Figure


class Tags(Record):
    """Whether the nearest neighbours of words are words of their kind."""

    words: int
    candidates: int
    top: int
    """Neighbours of each word."""
    share: Figure
    """Of neighbours that have the word's own tag; mean over words."""
    chance: Figure
    """The same for neighbours drawn at random."""
    by_tag: list[TagShare] = []


class Answers(Record):
    """What one probe saw in a recipe's model."""

    name: str
    """Of the probe in the recipe."""
    probe: str
    """Which fills one of the following."""
    model: str
    """SHA-256 of the weights that were asked."""
    checked: bool = True
    """False: the recipe's model was not at hand to compare."""
    neighbours: list[Neighbours] = []
    gaps: list[Gap] = []
    continuations: list[Continuation] = []
    tags: Tags | None = None


class Resources(Record):
    """What one job of this run took (a Snakemake benchmark)."""

    stage: str
    job: str
    seconds: Figure
    peak_mb: Figure
    """Peak resident memory in MB; 0 or NaN where the job was too short to be sampled."""
    cpu_seconds: Figure


class Planned(Record):
    """A stage's line in a plan."""

    stage: str
    jobs: int
    seconds: Figure


class Comparison(Record):
    """What a stage was planned to take beside what it took."""

    stage: str
    jobs: int
    """Jobs of the plan."""
    measured_jobs: int
    predicted_seconds: Figure
    """Of as many jobs as were measured."""
    seconds: Figure

    @property
    def ratio(self) -> float:
        """Fact over plan."""
        return self.seconds / self.predicted_seconds if self.predicted_seconds else math.nan


class Step(Record):
    """A file of the lineage."""

    path: str
    stage: str
    digest: str
    inputs: list[tuple[str, str]] = []
    """(role, digest)."""


class RecipeResult(Record):
    """Everything the report shows of one recipe."""

    recipe: ReportedRecipe
    runs: list[Run] = []
    answers: list[Answers] = []
    """Of the probes that looked into the pre-trained model."""
    training: Training | None = None
    parameters: int | None = None
    """Weights of the pre-trained model, heads included."""
    vocabulary: dict[str, Any] = {}
    """Record of the vocabulary."""
    instances: dict[str, Any] = {}
    """Manifest of the instance set, without its list of shards."""
    fetched: list[dict[str, Any]] = []
    """Ledgers of the texts it was made of and scored on, each with a name."""
    lineage: list[Step] = []
    versions: dict[str, list[str]] = {}
    resources: list[Resources] = []
    planned: list[Planned] = []
    """What results/plan.json says of it."""
    tokens_per_second: float | None = None
    measured_elsewhere: bool = False
    """Whether this comes from a figures file instead of results at hand."""

    @property
    def has_results(self) -> bool:
        """Whether anything at all is known of the recipe; a baseline's runs are not its own."""
        place = f"6_evaluate/{self.recipe.name}/"
        scored = any(run.result for run in self.runs if run.place.startswith(place))
        return scored or self.training is not None or bool(self.answers)

    def select(self, dataset: str, start: Start) -> list[Run]:
        """Return the runs on one data set from one start, by seed."""
        wanted = [run for run in self.runs if (run.dataset, run.start) == (dataset, start)]
        return sorted(wanted, key=lambda run: run.seed)

    def summary(self, dataset: str, start: Start, metric: str = "", part: str = "test") -> Summary:
        """Return mean and spread of a metric over the seeds, on the part dev or test."""
        runs = self.select(dataset, start)
        return summarize(
            run.metric(metric) if part == "test" else run.dev_metric(metric) for run in runs
        )
