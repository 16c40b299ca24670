"""What a BERT is to other programs: the settings and names that huggingface and google share."""

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from pipeline.artifacts import first_difference
from pipeline.converters import PortableModel
from pipeline.converters.foreign import Place, rename_by
from pipeline.converters.sections import configured_sections
from pipeline.errors import ConfigError, DataError, printable
from pipeline.registry import describe
from pipeline.spec import ConvertSpec
from pipeline.training.inference import HEAD

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}

_LAYER = r"encoder\.layers\.(\d+)\."
_THEIRS = r"bert.encoder.layer.\1."
NAMES = (
    (r"embedding\.(word|position)\.weight", r"bert.embeddings.\1_embeddings.weight"),
    (r"embedding\.segment\.weight", r"bert.embeddings.token_type_embeddings.weight"),
    (r"embedding\.norm\.(\w+)", r"bert.embeddings.LayerNorm.\1"),
    (_LAYER + r"attention\.(query|key|value)\.(\w+)", _THEIRS + r"attention.self.\2.\3"),
    (_LAYER + r"attention\.output\.(\w+)", _THEIRS + r"attention.output.dense.\2"),
    (_LAYER + r"attention_norm\.(\w+)", _THEIRS + r"attention.output.LayerNorm.\2"),
    (_LAYER + r"feed_forward\.up\.(\w+)", _THEIRS + r"intermediate.dense.\2"),
    (_LAYER + r"feed_forward\.down\.(\w+)", _THEIRS + r"output.dense.\2"),
    (_LAYER + r"feed_forward_norm\.(\w+)", _THEIRS + r"output.LayerNorm.\2"),
    (r"(?:targets\.nsp\.)?pooler\.(\w+)", r"bert.pooler.dense.\1"),
    (r"targets\.nsp\.output\.(\w+)", r"cls.seq_relationship.\1"),
    (r"targets\.mlm\.transform\.(\w+)", r"cls.predictions.transform.dense.\1"),
    (r"targets\.mlm\.norm\.(\w+)", r"cls.predictions.transform.LayerNorm.\1"),
    (r"targets\.mlm\.output\.weight", "cls.predictions.decoder.weight"),
    (r"targets\.mlm\.output\.bias", "cls.predictions.bias"),
)
# A pooler without the head it was trained for is carried along.
CARRIED = {f"bert.pooler.dense.{part}": f"pooler.{part}" for part in ("weight", "bias")}

# What its programs cannot compute: where -> option -> the values they have.
SHAPE: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "embedding": {"name": ("bert",), "positions": ("learned",), "norm": ("layer", "unbiased")},
    "encoder": {
        "name": ("transformer",),
        "mask": ("full",),
        "positions": ("none",),
        "norm": ("layer", "unbiased"),
        "norm_position": ("post",),
        "gated": (False,),
    },
}


class BertSettings(BaseModel):
    """The part of config.json or bert_config.json that decides what a network computes."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)
    vocab_size: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    num_hidden_layers: int = Field(ge=1)
    num_attention_heads: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = Field(0.1, ge=0, lt=1)
    attention_probs_dropout_prob: float = Field(0.1, ge=0, lt=1)
    max_position_embeddings: int = Field(512, ge=1)
    type_vocab_size: int = 2
    layer_norm_eps: float = Field(1e-12, gt=0)
    model_type: str = "bert"
    position_embedding_type: str = "absolute"
    is_decoder: bool = False
    tie_word_embeddings: bool = True


def read_settings(values: Any, where: str) -> BertSettings:
    """Return the settings in a parsed configuration file.

    Raises DataError for wrong values, ConfigError for networks that are not a BERT.
    """
    try:
        settings = BertSettings.model_validate(values)
    except ValidationError as error:
        raise DataError(*describe(error, where)) from None
    only = {
        "model_type": "bert",
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "type_vocab_size": 2,
    }
    for key, value in only.items():
        if (found := getattr(settings, key)) != value:
            raise ConfigError(
                f"{where}: {key}: {printable(found)}; only BERT-shaped networks are read, with "
                f"{value}"
            )
    if settings.hidden_act not in ACTIVATIONS:
        raise ConfigError(
            f"{where}: hidden_act: {printable(settings.hidden_act)}; known: "
            f"{', '.join(ACTIVATIONS)}"
        )
    return settings


def describe_network(
    settings: BertSettings, weights: Mapping[str, Tensor], spec: ConvertSpec, where: str
) -> dict[str, Any]:
    """Return architecture, targets and reference of a foreign BERT, from its settings.

    weights: by the names of NAMES. An architecture in the spec is kept as it is written, if it says
    the same but for dropout. Raises ConfigError for the first difference otherwise.
    """
    activation = ACTIVATIONS[settings.hidden_act]
    embedding = {
        "name": "bert",
        "dropout": settings.hidden_dropout_prob,
        "max_positions": settings.max_position_embeddings,
        "norm_epsilon": settings.layer_norm_eps,
    }
    encoder = {
        "name": "transformer",
        "hidden_size": settings.hidden_size,
        "num_layers": settings.num_hidden_layers,
        "num_heads": settings.num_attention_heads,
        "feedforward_size": settings.intermediate_size,
        "dropout": settings.hidden_dropout_prob,
        "attention_dropout": settings.attention_probs_dropout_prob,
        "norm_epsilon": settings.layer_norm_eps,
        "activation": activation,
    }
    mlm = {"norm_epsilon": settings.layer_norm_eps, "activation": activation}
    targets = find_bert_targets(weights, {"tied": settings.tie_word_embeddings, **mlm})
    if spec.targets is not None:
        targets = [target.section() for target in spec.targets]
    described: dict[str, Any] = {
        "architecture": {"embedding": embedding, "encoder": encoder},
        "targets": targets,
        "reference": spec.reference or "none",
        "special_tokens": True,
    }
    if spec.architecture is not None:
        stated = spec.architecture.model_dump(mode="json")
        given = {**described, "architecture": stated}
        if different := first_difference(_without_dropout(given), _without_dropout(described)):
            raise ConfigError(f"{where}: made with other settings than the spec's: {different}")
        described = given
    return described


def find_bert_targets(
    weights: Mapping[str, Tensor], mlm: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the targets whose tensors are there; mlm: the options of that target."""
    targets: list[dict[str, Any]] = []
    if "cls.predictions.transform.dense.weight" in weights:
        targets.append({"name": "mlm", **mlm})
    if "cls.seq_relationship.weight" in weights:
        targets.append({"name": "nsp"})
    return targets


def _without_dropout(described: Mapping[str, Any]) -> dict[str, Any]:
    return {
        where: {option: value for option, value in section.items() if "dropout" not in option}
        for where, section in configured_sections(described).items()
    }


def require_layers(settings: BertSettings, weights: Mapping[str, Tensor], where: str) -> None:
    """Raise DataError unless the weights hold as many layers as the settings say."""
    numbers = {
        int(name.split(".")[3]) for name in weights if name.startswith("bert.encoder.layer.")
    }
    if len(numbers) != settings.num_hidden_layers:
        raise DataError(
            f"{where}: holds {len(numbers)} layers, its configuration says "
            f"{settings.num_hidden_layers}"
        )


def bert_settings(model: PortableModel, program: str) -> dict[str, Any]:
    """Return the configuration of a model for other programs.

    Raises ConfigError for the first reason why it is not BERT-shaped.
    """
    sections = configured_sections(model.metadata)
    embedding, encoder = sections["embedding"], sections["encoder"]
    for where, options in SHAPE.items():
        for option, values in options.items():
            if (found := sections[where][option]) not in values:
                raise ConfigError(
                    f"{where}.{option}: {found}; {program} has BERT-shaped networks only, with "
                    f"{' or '.join(str(value) for value in values)}"
                )
    if "subencoder" in sections:
        raise ConfigError(f"subencoder: {program} has BERT-shaped networks only, without one")
    same = [("embedding.norm_epsilon", embedding["norm_epsilon"], encoder["norm_epsilon"])]
    if mlm := sections.get("targets.mlm"):
        for option in ("norm_epsilon", "activation"):
            same.append((f"targets.mlm.{option}", mlm[option], encoder[option]))
    for place, value, other in same:
        if value != other:
            raise ConfigError(f"{place}: {value}; {program} has one for all, the encoder's {other}")
    dropout = encoder["dropout"]
    attention = encoder["attention_dropout"]
    activation = next(name for name, ours in ACTIVATIONS.items() if ours == encoder["activation"])
    return {
        "vocab_size": model.metadata["token_ids"]["vocab_size"],
        "hidden_size": encoder["hidden_size"],
        "num_hidden_layers": encoder["num_layers"],
        "num_attention_heads": encoder["num_heads"],
        "intermediate_size": encoder["feedforward_size"],
        "hidden_act": activation,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout if attention is None else attention,
        "max_position_embeddings": embedding["max_positions"],
        "type_vocab_size": 2,
        "initializer_range": 0.02,
        "layer_norm_eps": encoder["norm_epsilon"],
    }


def bert_name(name: str, metadata: Mapping[str, Any]) -> str | None:
    """Return the name that a tensor of ours has in a BERT, None if there is none."""
    if name.startswith(HEAD) and (kind := head_kind(metadata)):
        pooled = kind == "BertForSequenceClassification"
        rules = [(r"head\.output\.(\w+)", r"classifier.\1")]
        rules += [(r"head\.dense\.(\w+)", r"bert.pooler.dense.\1")] if pooled else []
        return rename_by(rules, name)
    return rename_by(NAMES, name)


def head_kind(metadata: Mapping[str, Any]) -> str | None:
    """Return the program's class that computes what a fine-tuned head of ours does, if there is."""
    task = metadata.get("task", {})
    if task.get("name") == "classify" and metadata["pooling"] == "first":
        return "BertForSequenceClassification"
    if task.get("name") == "tag" and not task.get("crf"):
        return "BertForTokenClassification"
    return None


def bert_place(name: str) -> Place:
    """Return the place of a tensor by its name in a BERT; only segments have another shape."""
    if not name.endswith("token_type_embeddings.weight"):
        return Place(name)
    return Place(
        name,
        pack=lambda ours: ours[1:],
        unpack=lambda theirs: torch.cat([theirs.new_zeros(1, theirs.shape[1]), theirs]),
    )


def note_differences(model: PortableModel, program: str) -> None:
    """Note the settings that the other program computes otherwise."""
    sections = configured_sections(model.metadata)
    unbiased = [where for where, section in sections.items() if section.get("norm") == "unbiased"]
    if unbiased:
        theirs = {
            where: {**section, "norm": "layer"} if where in unbiased else section
            for where, section in sections.items()
        }
        model.notes.append(
            f"{', '.join(unbiased)}: norm unbiased, which {program} computes as layer; its hidden "
            f"states differ by up to {model.gap(theirs):g}"
        )
    rates = {sections[where]["dropout"] for where in ("embedding", "encoder")}
    if len(rates) > 1:
        model.notes.append(f"{program} has one dropout; the encoder's goes out")
