"""What the YAML files of config/ hold, one model for each folder; catalog.py reads and joins them.

A section names other files (`instances: reviews_lines`); what a stage receives (spec.py) holds
their content instead. Corpora and data sets are modelled in sources.py, architectures in spec.py.
"""

import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from pipeline.sources import Source
from pipeline.spec import (
    Component,
    ComponentField,
    Count,
    FinetuneSettings,
    InstancesSettings,
    Name,
    Natural,
    NonNegative,
    OptimizationSpec,
    Positive,
    Reference,
    Settings,
    Tokenizer,
    long_form,
)

Start = Literal["pretrained", "random"]
STARTS: tuple[Start, ...] = ("pretrained", "random")
CONFIG_VERSION = 1


class BuiltVocabulary(Settings):
    """A vocabulary counted from text."""

    corpora: Annotated[list[Name], Field(min_length=1)]
    """Names in config/corpora."""
    size: Count | None = None
    """Largest number of tokens, the special ones included; absent: no limit."""
    min_count: Count = 1
    """Tokens seen less often are left out."""
    characters: bool = False
    """Build the characters of the tokens instead (the vocabulary of a subencoder)."""
    bad_rows: Literal["fail", "skip"] = "fail"
    """What a malformed line does: stop the stage, or be counted and left out."""


class VocabularySection(Settings):
    """One file of config/vocabularies: how text is cut, and where the tokens come from."""

    description: str | None = None
    """One sentence for people."""
    tokenizer: Tokenizer = "bert"
    """How text is cut: bert (words, pieces), char, space (cut beforehand), word (segmenter)."""
    lowercase: bool = True
    """Lower-case and strip accents before cutting (tokenizer bert)."""
    built: BuiltVocabulary | None = None
    """Count the tokens of corpora; or else:"""
    imported: Source | None = None
    """Take a published file, one token a line."""

    @model_validator(mode="after")
    def _one_origin(self) -> "VocabularySection":
        if (self.built is None) == (self.imported is None):
            raise ValueError("give either built or imported")
        return self


class InstancesSection(InstancesSettings):
    """One file of config/instances: corpora cut into rows of token ids.

    Tokenizer and lowercase are the vocabulary's; the options of the kind stand beside these.
    """

    description: str | None = None
    """One sentence for people."""
    corpora: Annotated[list[Name], Field(min_length=1)]
    """Names in config/corpora, each once; joined in this order."""
    vocabulary: Name
    """Name in config/vocabularies."""
    jobs: Count = 1
    """Cluster jobs over which the shards are spread; changes nothing in the files."""

    @model_validator(mode="after")
    def _consistent(self) -> "InstancesSection":
        if given := sorted({"tokenizer", "lowercase"} & set(self.options())):
            raise ValueError(f"{given[0]}: belongs to the vocabulary; state it there")
        for position, corpus in enumerate(self.corpora):
            if corpus in self.corpora[:position]:
                first = self.corpora.index(corpus)
                raise ValueError(f"corpora.{position}: {corpus!r} stands at corpora.{first} too")
        if self.jobs > self.shards:
            raise ValueError(f"jobs {self.jobs} exceeds shards {self.shards}")
        return self


class FinetuneSection(FinetuneSettings):
    """How a recipe, or any recipe on a data set, is fine-tuned; a recipe's wishes win."""

    seeds: Annotated[list[Natural], Field(min_length=1)] = [7]
    """One run for each; `seeds` in config.yaml wins over both."""
    starts: Annotated[list[Start], Field(min_length=1)] = ["pretrained", "random"]
    """From which weights: the recipe's own, or random ones for comparison."""

    def given(self) -> dict[str, Any]:
        """Return what was stated, without the defaults."""
        return self.model_dump(exclude_unset=True)


class Averaging(Settings):
    """Which checkpoints make the model of the zoo."""

    last: Count = 1
    """Mean of this many last checkpoints."""


class Import(Settings):
    """A model from elsewhere, converted once."""

    converter: Name
    """uer, huggingface, google or native: the format it is in."""
    source: Source
    """Its file or folder."""


class Published(Settings):
    """A figure of a publication, to be set beside a measured one."""

    dataset: Name
    """Data set on which it was reached."""
    part: Literal["dev", "test"] = "test"
    """Part of the data set."""
    start: Start = "pretrained"
    """Whether the model had been pre-trained."""
    metric: str = ""
    """Name of the metric; absent: the main one of the task."""
    value: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
    """The figure, in percent."""
    source: str
    """Where it is printed."""
    tolerance: NonNegative | None = None
    """Largest difference, in points, that counts as reproduced; absent: the report's."""


class PublishedSpeed(Settings):
    """A published speed of pre-training."""

    machine: str
    """Model and hardware."""
    tokens_per_second: Positive
    """Tokens trained in a second."""
    source: str = ""
    """Where it is printed."""


class PublishedRatio(Settings):
    """A published ratio of speeds: how many times as fast as another model a model is."""

    than: Name
    """The other's name in config/architectures."""
    times: Positive
    """Its time over this model's."""
    source: str
    """Where it is printed."""


class ProbeComponent(Component):
    """A probe with its options; the bare name is short for no options."""

    name: Literal["cloze", "generate", "neighbours", "tags"]
    """Those whose answers a report shows."""


def _one_line(text: str) -> str:
    if not text.strip() or any(c != "\t" and unicodedata.category(c) == "Cc" for c in text):
        raise ValueError("a line is text without line breaks or control characters but tabs")
    return text


ProbeField = Annotated[
    ProbeComponent, BeforeValidator(long_form, json_schema_input_type=str | ProbeComponent)
]


class ProbeSection(Settings):
    """What a recipe's model is asked, for its report."""

    probe: ProbeField
    """cloze, generate, neighbours or tags, with its options."""
    lines: Annotated[
        list[Annotated[str, AfterValidator(_one_line)]], Field(min_length=1, max_length=100)
    ] = []
    """What it reads; with context: true of neighbours, sentence, tab, word. Not for tags."""
    corpus: Name | None = None
    """Name in config/corpora, for tags: lines of words with tags."""

    @model_validator(mode="after")
    def _one_text(self) -> "ProbeSection":
        wanted, other = ("corpus", "lines") if self.probe.name == "tags" else ("lines", "corpus")
        if not getattr(self, wanted) or getattr(self, other):
            raise ValueError(f"{self.probe.name} reads {wanted}; give that, and no {other}")
        return self


class Recipe(Settings):
    """One file of config/zoo: one model, pre-trained here, imported, or only compared as random."""

    description: str = ""
    """One sentence for people."""
    architecture: Name
    """Name in config/architectures."""
    instances: Name | None = None
    """Name in config/instances: what it is pre-trained on."""
    targets: Annotated[list[ComponentField], Field(min_length=1)] | None = None
    """Objectives whose losses are added, e.g. [mlm, nsp]."""
    optimization: OptimizationSpec | None = None
    """How it is pre-trained."""
    initial: Name | None = None
    """Recipe whose model pre-training starts from; absent: random weights."""
    average: Averaging = Averaging()
    """Which checkpoints are averaged."""
    keep_checkpoints: Literal["averaged", "all"] = "averaged"
    """Which checkpoints stay on disk: those that are averaged, without optimizer, or all."""
    imported: Import | None = None
    """The model comes from elsewhere; then there is no pre-training."""
    vocabulary: Name | None = None
    """Name in config/vocabularies, where no instances name it."""
    reference: Reference = "none"
    """uer-2020 computes what the 2020 reference computed, its departures from practice included."""
    datasets: list[Name] | None = None
    """Names in config/datasets; absent: those of config.yaml."""
    finetune: FinetuneSection = FinetuneSection()
    """What this model wants, over the data sets' settings."""
    baseline: Name | None = None
    """Recipe whose random starts are this one's too, so that they run once: the same network,
    vocabulary and fine-tuning."""
    needs: str | None = None
    """What the user must supply before it can run; it is left out of `zoo` until it is there.
    What corpora and data sets need, they say themselves."""
    twin_of: list[Name] = []
    """Recipes of which this is the small twin: the same targets, encoder and chain."""
    published: list[Published] = []
    """Figures to be set beside the measured ones."""
    speed: list[PublishedSpeed] = []
    """Speeds to be set beside the measured ones."""
    faster: PublishedRatio | None = None
    """How much faster than another model it is said to be."""
    probes: dict[Name, ProbeSection] = {}
    """What its model is asked, by a name of the recipe's own; the report shows the answers."""

    @property
    def is_trained(self) -> bool:
        """Return whether it is pre-trained here."""
        return self.optimization is not None

    @property
    def steps(self) -> list[int]:
        """Return the steps of its checkpoints, ascending; none without pre-training."""
        return self.optimization.steps() if self.optimization else []

    @property
    def averaged_steps(self) -> list[int]:
        """Return the steps whose checkpoints are averaged, ascending."""
        return self.steps[-self.average.last :]

    @property
    def passing_steps(self) -> list[int]:
        """Return the steps before those, ascending."""
        return self.steps[: -self.average.last]

    @model_validator(mode="after")
    def _one_origin(self) -> "Recipe":
        training: dict[str, Any] = {"instances": self.instances, "targets": self.targets}
        training["optimization"] = self.optimization
        missing = [key for key, value in training.items() if not value]
        if 0 < len(missing) < len(training):
            raise ValueError(f"{missing[0]}: missing; {', '.join(training)} go together")
        if self.is_trained and self.imported:
            raise ValueError("imported: excludes instances, targets and optimization")
        if self.is_trained == (self.vocabulary is not None):
            raise ValueError("vocabulary: give it where there are no instances, and only there")
        if self.initial and not self.is_trained:
            raise ValueError("initial: only a recipe that is pre-trained starts from another")
        if self.is_trained and self.average.last > len(self.steps):
            raise ValueError(f"average.last: {self.average.last} of {len(self.steps)} checkpoints")
        if not self.is_trained and not self.imported and self.finetune.starts != ["random"]:
            raise ValueError("without pre-training or import, finetune.starts must be [random]")
        if self.probes and not self.is_trained and not self.imported:
            raise ValueError("probes: without pre-training or import there is no model to ask")
        return self


class MainConfig(Settings):
    """config/config.yaml: what `all` builds, and on how many processes."""

    version: int = CONFIG_VERSION
    """Version of the settings' format."""
    recipes: Annotated[list[Name], Field(min_length=1)]
    """Names in config/zoo."""
    datasets: list[Name] = []
    """Names in config/datasets on which recipes are fine-tuned."""
    seeds: Annotated[list[Natural], Field(min_length=1)] | None = None
    """Seeds of fine-tuning, over those of recipes and data sets."""
    precision: Literal["fp32", "bf16"] | None = None
    """Arithmetic of all training, over that of recipes and data sets."""
    mirror: str | None = None
    """Folder in which sources are looked for first."""
    ranks: Literal[1, 2, 4, 8, 16, 32, 64] = 1
    """Processes of pre-training; changes nothing in the weights."""
    nodes: Count = 1
    """Machines over which they are spread (Slurm)."""

    @field_validator("version")
    @classmethod
    def _readable(cls, version: int) -> int:
        if version > CONFIG_VERSION:
            raise ValueError(f"settings of version {version}; this program reads {CONFIG_VERSION}")
        return version

    @model_validator(mode="after")
    def _whole_nodes(self) -> "MainConfig":
        if self.ranks % self.nodes or (self.nodes > 1 and self.ranks == 1):
            raise ValueError(f"nodes: {self.ranks} ranks cannot be spread over {self.nodes} nodes")
        return self
