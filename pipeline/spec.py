"""Settings: what every stage receives (`--spec`), as strict models.

Component sections are `{name: ..., option: ...}` and open here; the component's own Config checks
them where torch is loaded. The folders of config/ are modelled in catalog.py.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import ConfigError, UsageError
from pipeline.registry import describe
from pipeline.strict import parse_json, parse_yaml, read_yaml

# No leading dot, no two dots in a row, no dot at the end: names become parts of paths.
NAME_PATTERN = r"^[A-Za-z0-9](\.?[A-Za-z0-9_-]){0,63}$"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Tokenizer = Literal["bert", "char", "space", "word"]
CorpusFormat = Literal["lines", "documents", "labelled", "parallel"]
Reference = Literal["none", "uer-2020"]


class Settings(BaseModel):
    """Base of all models of settings: strict types, unknown keys refused, frozen."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Component(BaseModel):
    """One alternative of a room with its options, `{name: lstm, hidden_size: 512, ...}`.

    The bare name is short for a section without options.
    """

    model_config = ConfigDict(
        extra="allow", frozen=True, strict=True, use_attribute_docstrings=True
    )
    name: Name
    """Which alternative; `python -m pipeline check` lists them."""

    def section(self) -> dict[str, Any]:
        """Return the section as plain values."""
        return self.model_dump()


def long_form(value: Any) -> Any:
    """Return a component's section for its bare name."""
    return {"name": value} if isinstance(value, str) else value


ComponentField = Annotated[
    Component, BeforeValidator(long_form, json_schema_input_type=str | Component)
]


class ArchitectureSpec(Settings):
    """A network: embedding (+ subencoder) and encoder."""

    embedding: ComponentField
    """Ids to vectors; `size` defaults to the encoder's hidden_size."""
    encoder: ComponentField
    """Vectors to hidden states."""
    subencoder: ComponentField | None = None
    """Characters of each word to a vector that is added to the embedding."""


class VocabSpec(Settings):
    """Settings of the stage vocab: build from a corpus, or check a published file."""

    tokenizer: Tokenizer = "bert"
    """How text is cut: bert (words, pieces), char, space (cut beforehand), word (segmenter)."""
    lowercase: bool = True
    """Lower-case and strip accents before cutting (tokenizer bert)."""
    size: Count | None = None
    """Largest number of tokens, the special ones included; absent: no limit."""
    min_count: Count = 1
    """Tokens seen less often are left out."""
    characters: bool = False
    """Build the characters of the tokens instead (the vocabulary of a subencoder)."""
    bad_rows: Literal["fail", "skip"] = "fail"
    """What a malformed line does: stop the stage, or be counted and left out."""


class InstancesSettings(BaseModel):
    """How a corpus is cut into rows; the options of the kind stand beside these."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
    kind: Name
    """lines, sentences, labelled or parallel: the layout of the corpus."""
    seq_length: Annotated[int, Field(ge=2, le=65536)] = 128
    """Longest row in tokens."""
    shards: Annotated[int, Field(ge=1, le=99999)] = 1
    """Number of files."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of documents kept out of training, chosen by their digest, for the held-out loss."""
    bad_rows: Literal["fail", "skip"] = "fail"
    """What a malformed line does: stop the stage, or be counted and left out."""
    max_unknown: Share = 1.0
    """Largest share of unknown tokens before the stage refuses."""
    seed: Natural = 7
    """Seed of what is random in building (sentence pairs, short sequences)."""

    def options(self) -> dict[str, Any]:
        """Return the options of the kind alone."""
        return dict(self.model_extra or {})


class InstancesSpec(InstancesSettings):
    """Settings of the stage instances."""

    tokenizer: Tokenizer = "bert"
    """Must be the vocabulary's."""
    lowercase: bool = True
    """Must be the vocabulary's."""


class OptimizationSpec(Settings):
    """How a model is pre-trained. One unit of time everywhere: the optimiser step."""

    total_steps: Count
    """Optimiser steps in all; the schedule ends here."""
    checkpoint_steps: Count
    """Steps in a segment; a checkpoint is published at each multiple and it divides total_steps."""
    batch_size: Count = 64
    """Instances in a global batch, over all ranks and micro-batches."""
    micro_batches: Literal[1, 2, 4, 8, 16, 32, 64] = 8
    """Parts into which a global batch is cut; at most batch_size; fixed for a run."""
    learning_rate: Positive = 1e-4
    """Peak rate."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Decay after the warm-up."""
    warmup: Share = 0.1
    """Share of total_steps over which the rate rises from 0."""
    weight_decay: NonNegative = 0.01
    """Decoupled decay, not applied to biases and norms."""
    betas: Annotated[list[Share], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    """Averaging rates of AdamW's two moments."""
    epsilon: Positive = 1e-6
    """AdamW's epsilon."""
    bias_correction: bool = True
    """False: Adam as Google BERT and the reference have it."""
    clip_norm: NonNegative = 1.0
    """Largest gradient norm; 0 switches clipping off."""
    resume_steps: Count = 100
    """Steps between resume points; what a kill can cost at most."""
    digest_steps: Count = 200
    """Steps between comparisons of the replicas' weights."""
    report_steps: Count = 20
    """Steps between lines of metrics."""
    reduction: Literal["tree", "ddp"] = "tree"
    """tree: the same bits for any number of ranks; ddp: all-reduce, overlapped, for GPUs."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Type of the arithmetic (autocast); weights stay fp32."""
    compile: bool = False
    """Compile the model with torch.compile."""
    seed: Natural = 7
    """Seed of weights, order, masks and dropout."""
    output_bias: Literal["zero", "frequencies"] = "zero"
    """Where a softmax over the vocabulary starts: at 0, or at the log frequencies of its labels."""

    @model_validator(mode="after")
    def _whole_segments(self) -> "OptimizationSpec":
        if self.total_steps % self.checkpoint_steps:
            legal = [n for n in range(1, self.total_steps + 1) if self.total_steps % n == 0]
            close = min(legal, key=lambda n: abs(n - self.checkpoint_steps))
            raise ValueError(
                f"checkpoint_steps {self.checkpoint_steps} does not divide total_steps "
                f"{self.total_steps}; use {close}"
            )
        if self.micro_batches > self.batch_size:
            raise ValueError(
                f"micro_batches {self.micro_batches} exceeds batch_size {self.batch_size}"
            )
        return self

    def steps(self) -> list[int]:
        """Return the steps at which a checkpoint is published, ascending."""
        return list(range(self.checkpoint_steps, self.total_steps + 1, self.checkpoint_steps))


class PretrainSpec(Settings):
    """Settings of the stage pretrain."""

    architecture: ArchitectureSpec
    """The network."""
    targets: Annotated[list[ComponentField], Field(min_length=1)]
    """Objectives whose losses are added, e.g. [mlm, nsp]."""
    optimization: OptimizationSpec
    """How it is trained."""
    reference: Reference = "none"
    """uer-2020 computes what the 2020 reference computed, its departures from practice included."""


class FinetuneSettings(Settings):
    """Hyper-parameters of fine-tuning. A recipe or a data set may give any of them."""

    epochs: Count = 3
    """Passes over the training rows; the best on dev is kept."""
    batch_size: Count = 64
    """Rows in a batch."""
    micro_batches: Literal[1, 2, 4, 8, 16, 32, 64] = 1
    """Parts into which a batch is cut (gradient accumulation)."""
    learning_rate: Positive | Annotated[list[Positive], Field(min_length=1)] = 2e-5
    """Peak rate; of a list the value with the best dev score is kept (tie: the smaller)."""
    warmup: Share = 0.1
    """Share of all steps over which the rate rises from 0."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Decay after the warm-up."""
    weight_decay: NonNegative = 0.01
    """Decoupled decay, not applied to biases and norms."""
    betas: Annotated[list[Share], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    """Averaging rates of AdamW's two moments."""
    epsilon: Positive = 1e-6
    """AdamW's epsilon."""
    bias_correction: bool = True
    """False: Adam as Google BERT and the reference have it."""
    clip_norm: NonNegative = 1.0
    """Largest gradient norm; 0 switches clipping off."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor on the learning rate for each layer further from the head."""
    freeze: Literal["none", "embedding", "all"] = "none"
    """Which part of the network keeps its weights: none, the embedding, or all but the head."""
    folds: Annotated[int, Field(ge=2, le=100)] | None = None
    """Cross-validation: as many parts of the training rows are left out and scored, in turn."""
    patience: Count | None = None
    """Epochs without a better dev score before training stops early; absent: never."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Type of the arithmetic (autocast); weights stay fp32."""
    seq_length: Annotated[int, Field(ge=4, le=65536)] = 128
    """Longest row in tokens, special ones included."""
    pooling: Literal["first", "mean", "max", "last"] = "first"
    """Which hidden states a task that labels whole texts looks at."""
    train_rows: Count | None = None
    """Train on this many rows, the first by digest; absent: all."""
    dev_rows: Count | None = None
    """Choose epoch and rate by this many rows of dev, likewise (rank: and the rest of the last
    question); absent: all."""
    bad_rows: Literal["fail", "skip"] = "fail"
    """What a malformed row does: stop the stage, or be counted and left out."""


class FinetuneSpec(FinetuneSettings):
    """Settings of the stage finetune."""

    architecture: ArchitectureSpec | None = None
    """The network; with --init it may be absent and must otherwise equal the file's."""
    task: ComponentField
    """classify, rank, tag or span, with its options."""
    tokenizer: Tokenizer = "bert"
    """Taken from --init where given."""
    lowercase: bool = True
    """Taken from --init where given."""
    reference: Reference = "none"
    """uer-2020 computes what the 2020 reference computed."""
    seed: Natural = 7
    """Seed of head, order and dropout."""


class EvaluateSpec(Settings):
    """Settings of the stages evaluate and predict; everything else is in the model's metadata."""

    bad_rows: Literal["fail", "skip"] | None = None
    """What a malformed row does; absent: as in the fine-tuning of the model."""


class ConvertSpec(Settings):
    """Settings of the stage convert: what a model from elsewhere does not say of itself."""

    architecture: ArchitectureSpec | None = None
    """The network; needed for uer, and for google without bert_config.json."""
    targets: list[ComponentField] | None = None
    """Targets whose heads are read; absent: those that the tensors' names show."""
    tokenizer: Tokenizer | None = None
    """How its text is cut; absent: as the format's own settings say, else bert."""
    lowercase: bool | None = None
    """Whether its text is lower-cased; absent: as the format's own settings say, else true."""
    reference: Reference | None = None
    """uer-2020: later stages compute what the 2020 reference computed; absent: none."""
    ignore: list[str] = []
    """Patterns (`cls.*`) of tensors to leave out; any other one that has no place is an error."""


class RunOptions(Settings):
    """How a stage runs; never part of a spec, its digest or a stamp."""

    processes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Worker processes of a data stage."""
    ranks: Annotated[int, Field(ge=1, le=4096)] = 1
    """Ranks of a training stage."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    """cpu, cuda, or auto: cuda where there is one."""
    stop_after_minutes: Natural = 0
    """Save and exit 75 before this many minutes are over; 0: no limit."""


Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], values: dict[str, Any], where: str) -> Model:
    """Return `values` as a checked model. Raises ConfigError, one line for each problem."""
    try:
        return model(**values)
    except ValidationError as error:
        raise ConfigError(*describe(error, where, model)) from None


def read_spec(text: str, where: str = "--spec") -> tuple[dict[str, Any], str]:
    """Return (settings, their name in messages) of inline JSON or of a YAML file."""
    if text.lstrip().startswith("{"):
        return parse_json(text, where, ConfigError), where
    return read_yaml(Path(text)), text


def load_spec(model: type[Model], text: str, assignments: list[str]) -> tuple[Model, RunOptions]:
    """Return the checked spec of a stage and its run options.

    text: a YAML file's path or inline JSON. assignments: `key=value` of `--set`; keys are dotted
    paths of the spec, or run options; values are YAML. Raises ConfigError, UsageError.
    """
    values, where = read_spec(text) if text else ({}, "--spec")
    run: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {assignment}: expected key=value")
        parsed = parse_yaml(value, f"--set {key}")
        if key in RunOptions.model_fields:
            run[key] = parsed
        else:
            _assign(values, key.split("."), parsed, key)
    return validate(model, values, where), validate(RunOptions, run, "--set")


def _assign(values: dict[str, Any], path: list[str], value: Any, key: str) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise UsageError(f"--set {key}: {part} has no fields")
    values[path[-1]] = value
