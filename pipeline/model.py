"""Models: an embedding (+ subencoder), an encoder and targets, composed from an architecture."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.layers import Recurrent, RowClassifier, TargetOutput, VocabularyOutput
from pipeline.registry import EMBEDDINGS, ENCODERS, SUBENCODERS, TARGETS
from pipeline.spec import ArchitectureSpec, Component
from pipeline.subencoders import Characters
from pipeline.text.order import RowRandom, seed_of
from pipeline.text.rows import Rows
from pipeline.text.vocabulary import TokenIds

INITIAL_DEVIATION = 0.02

# How the 2020 reference departs from common practice: settings of every component that has them
# and of single ones, unless a section says otherwise.
UER_2020: Mapping[str, Mapping[str, Any]] = {
    "": {"norm": "unbiased", "read_padding": True},
    "cnn": {"activation": "none"},
    "rcnn": {"activation": "none"},
    "crnn": {"activation": "none"},
    "gated_cnn": {"residual": "between"},
    "attention": {"residual": "none"},
    "s2s": {"teacher": "same"},
    "bilm": {"boundaries": True},
}


# For `combinations`: target lists, what their targets need to be told, encoders' other modes.
TARGET_LISTS = (
    *(["mlm"], ["nsp"], ["lm"], ["bilm"], ["cls"], ["s2s"]),
    *(["mlm", "nsp"], ["lm", "cls"], ["mlm", "cls"], ["bilm", "cls"], ["mlm", "s2s"]),
)
TARGET_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "nsp": {"pooling": "mean"},
    "cls": {"pooling": "mean", "num_labels": 2},
}
ENCODER_VARIANTS: Mapping[str, Any] = {"mask": "causal", "bidirectional": True}


class Combination(NamedTuple):
    """An encoder, targets, and why they do not go together (empty: they do)."""

    encoder: Component
    targets: list[Component]
    problem: str


class Model(nn.Module):
    """An embedding, an encoder and the targets it is trained with."""

    def __init__(
        self,
        embedding: nn.Module,
        encoder: nn.Module,
        subencoder: nn.Module | None,
        targets: Mapping[str, nn.Module],
    ):
        super().__init__()
        self.embedding = embedding
        self.subencoder = subencoder
        self.encoder = encoder
        self.targets = nn.ModuleDict(targets)

    @property
    def hidden_size(self) -> int:
        """D, the size of the hidden states that `encode` returns."""
        return int(self.encoder.output_size)  # type: ignore[arg-type]

    def collate(self, rows: Rows, batch: dict[str, Tensor], rng: RowRandom) -> list[int]:
        """Let each target complete the batch, in order; return their unit counts."""
        targets: Any = self.targets.values()
        return [target.collate(rows, batch, rng) for target in targets]

    def forward(self, batch: dict[str, Tensor]) -> list[TargetOutput]:
        """Return what each target says of the batch, in order."""
        hidden = self.encode(batch)
        return [target(hidden, batch) for target in self.targets.values()]

    def encode(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return hidden states (B, T, D). batch: token_ids, segment_ids, (B, T) int64."""
        emb = self._embed(batch["token_ids"], batch["segment_ids"])
        return self.encoder(emb, batch["segment_ids"])

    def step(self, token_ids: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
        """Return hidden states of the next tokens (B, T, D), and the cache for those after them.

        token_ids: (B, T) int64, T new tokens. Raises ConfigError if the encoder cannot generate.
        """
        step: Any = getattr(self.encoder, "step", None)
        if step is None:
            name = self.encoder.name
            raise ConfigError(f"encoder.name: {name} sees the future, so it cannot generate")
        first, past = cache or (0, None)
        emb = self._embed(token_ids, torch.ones_like(token_ids), first)
        hidden, past = step(emb, past)
        return hidden, (first + token_ids.shape[1], past)

    def _embed(self, token_ids: Tensor, segment_ids: Tensor, first_position: int = 0) -> Tensor:
        emb = self.embedding(token_ids, segment_ids, first_position)
        if self.subencoder is None:
            return emb
        words, places = token_ids.unique(return_inverse=True)
        characters = self.subencoder.get_buffer("characters").index_select(0, words)
        longest = int((characters > 0).sum(-1).max())
        features = self.subencoder(characters[None, :, : max(1, longest)]).squeeze(0)
        return emb + features.index_select(0, places.flatten()).view_as(emb)


def build_model(
    architecture: ArchitectureSpec,
    token_ids: TokenIds,
    targets: Sequence[Component] = (),
    reference: str = "none",
    characters: Characters | None = None,
) -> Model:
    """Return a model on the CPU whose weights are NaN until `initialize` or a file fills them.

    reference: uer-2020 selects the settings of UER_2020. characters: needed with a subencoder.
    Raises ConfigError for wrong settings and for parts that do not fit together.
    """
    with torch.device("meta"):
        model = _compose(architecture, token_ids, targets, reference, characters)
    model.to_empty(device="cpu")
    _tie(model)  # anew: leaving the meta device made new parameters
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
    if model.subencoder is not None and characters is not None:
        model.subencoder.register_buffer("characters", characters.ids)
    return model


def check_architecture(
    architecture: ArchitectureSpec,
    targets: Sequence[Component],
    vocab_size: int,
    reference: str = "none",
) -> int:
    """Return the number of parameters; raise ConfigError if the combination makes no sense.

    Builds on the meta device: no memory, a fraction of a second.
    """
    model = outline_model(architecture, targets, vocab_size, reference)
    return sum(parameter.numel() for parameter in model.parameters())


def outline_model(
    architecture: ArchitectureSpec,
    targets: Sequence[Component],
    vocab_size: int,
    reference: str = "none",
) -> Model:
    """Return a model on the meta device: all its parts and shapes, no numbers.

    Raises ConfigError if the combination makes no sense.
    """
    ids = TokenIds(vocab_size, pad=0, unk=1, cls=2, sep=3, mask=4)
    characters = Characters(torch.zeros(0), 2) if architecture.subencoder else None
    with torch.device("meta"):
        return _compose(architecture, ids, targets, reference, characters)


def combinations() -> list[Combination]:
    """Return every encoder with every target list that somebody may want, and why not where not.

    Encoders come in all registered kinds, also looking back only (mask: causal) or both ways
    (bidirectional). Every embedding and subencoder goes with each of them.
    """
    result = []
    for name in ENCODERS.names():
        options = ENCODERS.get(name).Config.model_fields
        variants = [{}, *({k: v} for k, v in ENCODER_VARIANTS.items() if k in options)]
        for variant in variants:
            architecture = ArchitectureSpec(
                embedding=Component(name="bert"), encoder=Component(name=name, **variant)
            )
            for targets in TARGET_LISTS:
                sections = [Component(name=t, **TARGET_OPTIONS.get(t, {})) for t in targets]
                problem = ""
                try:
                    check_architecture(architecture, sections, vocab_size=16)
                except ConfigError as error:
                    problem = str(error)
                result.append(Combination(architecture.encoder, sections, problem))
    return result


def combinations_table() -> str:
    """Return `combinations` as a Markdown table: encoders in rows, target lists in columns."""
    rows: dict[str, list[str]] = {}
    for encoder, _, problem in combinations():
        options = [f"{key}: {value}".lower() for key, value in encoder.section().items()][1:]
        label = f"{encoder.name}, {options[0]}" if options else encoder.name
        rows.setdefault(label, []).append("no" if problem else "yes")
    heads = ["encoder", *("[" + ", ".join(targets) + "]" for targets in TARGET_LISTS)]
    lines = [heads, ["---"] * len(heads), *([label, *cells] for label, cells in rows.items())]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _compose(
    architecture: ArchitectureSpec,
    token_ids: TokenIds,
    targets: Sequence[Component],
    reference: str,
    characters: Characters | None,
) -> Model:
    encoder_class, encoder_config = _configure(ENCODERS, architecture.encoder, "encoder", reference)
    section = {"size": encoder_config.hidden_size, **architecture.embedding.section()}
    embedding_class, embedding_config = _configure(
        EMBEDDINGS, Component(**section), "embedding", reference
    )
    embedding = embedding_class(embedding_config, token_ids.vocab_size)
    encoder = encoder_class(encoder_config, embedding.output_size)
    subencoder = None
    if architecture.subencoder is not None:
        if characters is None:
            raise ConfigError("subencoder: needs the characters of the vocabulary")
        cls, config = _configure(SUBENCODERS, architecture.subencoder, "subencoder", reference)
        subencoder = cls(config, characters.vocab_size, embedding.output_size)
    _check_names([target.name for target in targets])
    heads = {}
    for target in targets:
        section = {**_poolers(targets, reference, target.name), **target.section()}
        cls, config = _configure(TARGETS, Component(**section), f"targets.{target.name}", reference)
        heads[target.name] = cls(config, encoder.output_size, token_ids)
    model = Model(embedding, encoder, subencoder, heads)
    _check_targets(model, reference)
    _tie(model)
    return model


def _configure(registry: Any, section: Component, where: str, reference: str) -> tuple[Any, Any]:
    """Return (class, Config) of a section, with the reference's settings where it says nothing."""
    options = section.section()
    if reference == "uer-2020":
        fields = registry.get(section.name, f"{where}.name").Config.model_fields
        preset = {**UER_2020[""], **UER_2020.get(section.name, {})}
        options = {**{k: v for k, v in preset.items() if k in fields}, **options}
    return registry.configure(options, where)


def _poolers(targets: Sequence[Component], reference: str, name: str) -> dict[str, bool]:
    """The reference's nsp has a hidden layer beside mlm, and none alone."""
    if reference != "uer-2020" or name != "nsp":
        return {}
    return {"pooler": any(target.name == "mlm" for target in targets)}


def _check_names(names: Sequence[str]) -> None:
    """Raise ConfigError if the targets cannot share rows, whatever the encoder."""
    classes = [TARGETS.get(name, "targets") for name in names]
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise ConfigError(f"targets: {twice} stands twice; once is enough")
    replacing = [c.name for c in classes if c.replaces_tokens]
    if len(replacing) > 1:
        raise ConfigError(
            f"targets: {' and '.join(replacing)} both replace tokens; use one of them"
        )
    kinds = [c.instance_kinds for c in classes]
    if kinds and not frozenset.intersection(*kinds):
        found = "; ".join(f"{c.name}: {', '.join(sorted(c.instance_kinds))}" for c in classes)
        raise ConfigError(f"targets: no instance kind serves all of them ({found})")
    reading = [c.name for c in classes if c.sees in ("past", "halves")]
    if replacing and reading:
        raise ConfigError(
            f"targets: {replacing[0]} replaces tokens that {reading[0]} predicts; use one of them"
        )


def _check_targets(model: Model, reference: str) -> None:
    """Raise ConfigError if a target would see what it predicts, or nothing."""
    encoder = model.encoder
    for name, target in model.targets.items():
        if target.sees == "past" and not encoder.causal:
            raise ConfigError(
                f"targets: {name} would see the tokens it predicts, because encoder "
                f"{encoder.name} looks ahead; use a causal encoder, or the target mlm"
            )
        if target.sees == "halves" and not getattr(encoder, "separate_halves", False):
            raise ConfigError(
                f"targets: {name} needs an encoder whose halves look in one direction each, and "
                f"{encoder.name} does not have them; use bilstm"
            )
        pooling = target.pooling if isinstance(target, RowClassifier) else None
        if pooling == "first" and encoder.causal and reference == "none":
            raise ConfigError(
                f"targets.{name}.pooling: first sees one token only, because encoder "
                f"{encoder.name} does not look ahead; use last, mean or max"
            )


def _tie(model: Model) -> None:
    """Give tied outputs the word embedding's weight."""
    word = model.embedding.get_parameter("word.weight")
    for name, target in model.targets.items():
        output = getattr(target, "output", None)
        if isinstance(output, VocabularyOutput) and output.weight is None:
            if tuple(word.shape) != output.size:
                raise ConfigError(
                    f"targets.{name}.tied: the embedding has size {word.shape[1]} and the hidden "
                    f"states {output.size[1]}; a tied softmax needs them equal"
                )
            output.tie(word)


def initialize(module: nn.Module, seed: int, reference: str = "none") -> None:
    """Fill every parameter with values that depend on the seed and its name only.

    Norms are 1 and 0, biases 0 (the forget gates of an LSTM 1); linear maps and embeddings
    N(0, 0.02) cut at two deviations, as BERT; convolutions N(0, sqrt(2 / inputs)); recurrent
    weights and the map to the vocabulary uniform within 1 / sqrt(D): as BERT's at D = 768, and
    larger where D is small (after 200 steps an LSTM of 128 units stands at 5.2 nats a token
    instead of 5.9). reference uer-2020: everything but norms N(0, 0.02), uncut.
    """
    for name, part in module.named_modules():
        for own, parameter in part.named_parameters(prefix=name, recurse=False):
            key = hashlib.blake2b(own.encode(), digest_size=8).digest()
            generator = torch.Generator().manual_seed(seed_of(seed, int.from_bytes(key, "little")))
            values = torch.empty(parameter.shape)
            _draw(part, own.rpartition(".")[2], values, generator, reference)
            with torch.no_grad():
                parameter.copy_(values)


def _draw(
    part: nn.Module, name: str, values: Tensor, generator: torch.Generator, reference: str
) -> None:
    deviation = INITIAL_DEVIATION
    if "norm" in type(part).__name__.lower():
        values.fill_(1.0 if name == "weight" else 0.0)
    elif reference == "uer-2020":
        values.normal_(0, deviation, generator=generator)
    elif isinstance(part, Recurrent):
        bound = 1 / math.sqrt(part.hidden_size)
        if name.startswith("weight"):
            values.uniform_(-bound, bound, generator=generator)
        else:
            values.zero_()
            if part.cell == "lstm" and name.startswith("bias_ih"):
                values[part.hidden_size : 2 * part.hidden_size] = 1.0
    elif name == "bias":
        values.zero_()
    elif isinstance(part, VocabularyOutput):
        bound = 1 / math.sqrt(part.size[1])
        values.uniform_(-bound, bound, generator=generator)
    elif isinstance(part, nn.Conv1d):
        values.normal_(0, math.sqrt(2 / values[0].numel()), generator=generator)
    else:
        nn.init.trunc_normal_(
            values, 0, deviation, -2 * deviation, 2 * deviation, generator=generator
        )
