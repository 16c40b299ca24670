"""The 2020 reference (UER-py): its names in all four generations, its settings, its norms.

A checkpoint there is a bare mapping of names to tensors, so the architecture comes from `--spec`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.converters import WORD, PortableModel
from pipeline.converters.foreign import ForeignConverter, Place, equal, rename_by
from pipeline.converters.sections import (
    ROOMS,
    configured_sections,
    modes_of,
    state_modes,
)
from pipeline.converters.tensor_files import first_existing, read_tensors
from pipeline.errors import ConfigError, DataError, MissingError
from pipeline.registry import CONVERTERS, TARGETS
from pipeline.spec import Component, ConvertSpec
from pipeline.subencoders import LONGEST_WORD, ROWS, TABLE
from pipeline.text.vocabulary import TokenIds, Vocabulary
from pipeline.training.inference import HEAD

# Ours -> theirs (names of 2020). A norm's weight and bias are called gamma and beta there.
_LAYER = r"encoder\.layers\.(\d+)\."
_TRANSFORMER = r"encoder.transformer.\1."
NAMES = (
    (r"embedding\.(word|position|segment)\.weight", r"embedding.\1_embedding.weight"),
    (r"embedding\.norm\.(\w+)", r"embedding.layer_norm.\1"),
    (_LAYER + r"attention\.query\.(\w+)", _TRANSFORMER + r"self_attn.linear_layers.0.\2"),
    (_LAYER + r"attention\.key\.(\w+)", _TRANSFORMER + r"self_attn.linear_layers.1.\2"),
    (_LAYER + r"attention\.value\.(\w+)", _TRANSFORMER + r"self_attn.linear_layers.2.\2"),
    (_LAYER + r"attention\.output\.(\w+)", _TRANSFORMER + r"self_attn.final_linear.\2"),
    (_LAYER + r"attention_norm\.(\w+)", _TRANSFORMER + r"layer_norm_1.\2"),
    (_LAYER + r"feed_forward\.up\.(\w+)", _TRANSFORMER + r"feed_forward.linear_1.\2"),
    (_LAYER + r"feed_forward\.down\.(\w+)", _TRANSFORMER + r"feed_forward.linear_2.\2"),
    (_LAYER + r"feed_forward_norm\.(\w+)", _TRANSFORMER + r"layer_norm_2.\2"),
    (_LAYER + r"query\.(\w+)", r"encoder.self_attn.\1.linear_layers.0.\2"),
    (_LAYER + r"key\.(\w+)", r"encoder.self_attn.\1.linear_layers.1.\2"),
    (_LAYER + r"value\.(\w+)", r"encoder.self_attn.\1.linear_layers.2.\2"),
    (_LAYER + r"output\.(\w+)", r"encoder.self_attn.\1.final_linear.\2"),
    (r"encoder\.(rnn|rnn_forward|rnn_backward)\.(\w+)", r"encoder.\1.\2"),
    (r"subencoder\.embedding\.weight", r"subencoder.embedding_layer.weight"),
    (r"subencoder\.rnn\.(\w+)", r"subencoder.rnn.\1"),
    (r"targets\.mlm\.transform\.(\w+)", r"target.mlm_linear_1.\1"),
    (r"targets\.mlm\.norm\.(\w+)", r"target.layer_norm.\1"),
    (r"targets\.mlm\.output\.(\w+)", r"target.mlm_linear_2.\1"),
    (r"targets\.nsp\.pooler\.(\w+)", r"target.nsp_linear_1.\1"),
    (r"targets\.(?:lm|bilm|s2s)\.output\.(\w+)", r"target.output_layer.\1"),
    (r"targets\.cls\.pooler\.(\w+)", r"target.linear_1.\1"),
    (r"targets\.cls\.output\.(\w+)", r"target.linear_2.\1"),
    (r"targets\.s2s\.embedding\.weight", r"target.embedding_layer.weight"),
    (r"targets\.s2s\.decoder\.(\w+)", r"target.decoder.\1"),
    (r"head\.dense\.(\w+)", r"output_layer_1.\1"),
)
# Convolutions: the first reads whole vectors of one channel, (D, 1, K, E); later ones (D, D, K, 1).
FIRST_CONVOLUTIONS = (
    (r"encoder\.(?:convolutions\.layers\.0|layers\.0\.convolution)\.(\w+)", r"encoder.conv_1.\1"),
    (r"encoder\.layers\.0\.gate\.(\w+)", r"encoder.gate_1.\1"),
    (r"subencoder\.convolution\.(\w+)", r"subencoder.cnn.\1"),
)
LATER_CONVOLUTIONS = (
    (r"encoder\.convolutions\.layers\.(\d+)\.(\w+)", "conv"),
    (r"encoder\.layers\.(\d+)\.convolution\.(\w+)", "conv"),
    (r"encoder\.layers\.(\d+)\.gate\.(\w+)", "gate"),
)

# Later names -> those of 2020.
GENERATIONS = (
    (r"embedding\.word\.embedding\.(.+)", r"embedding.word_embedding.\1"),
    (r"embedding\.pos\.embedding\.(.+)", r"embedding.position_embedding.\1"),
    (r"embedding\.seg\.embedding\.(.+)", r"embedding.segment_embedding.\1"),
    (r"target\.sp[_.]linear_(.+)", r"target.nsp_linear_\1"),
    (r"target\.mlm\.linear_(.+)", r"target.mlm_linear_\1"),
    (r"target\.mlm\.layer_norm\.(.+)", r"target.layer_norm.\1"),
    (r"target\.(?:lm|bilm)\.output_layer\.(.+)", r"target.output_layer.\1"),
    (r"target\.cls\.linear_(.+)", r"target.linear_\1"),
)

# What no setting of its code can compute: (section's name, option) -> the only value it has.
FIXED_OPTIONS: Mapping[tuple[str, str], Any] = {
    ("bert", "positions"): "learned",
    ("transformer", "positions"): "none",
    ("transformer", "norm_position"): "post",
    ("transformer", "gated"): False,
    ("transformer", "activation"): "gelu",
    ("attention", "mask"): "full",
    ("mlm", "activation"): "gelu",
}
# The vocabulary of a subencoder: one character a line.
CHARACTERS = "sub_vocab.txt"

# Ids that its code takes for granted.
FIXED_IDS = {"pad": 0, "unk": 100, "cls": 101, "sep": 102, "mask": 103}


@CONVERTERS.register("uer")
class UerConverter(ForeignConverter):
    """A `.bin` file, or a folder with model.bin, config.json and vocab.txt."""

    files = frozenset({"model.bin", "config.json", CHARACTERS})
    weights = "model.bin"

    def load(self, source: Path) -> tuple[dict[str, Tensor], Path]:
        """Return the tensors as they are stored, and the file to name in messages."""
        path = source
        if source.is_dir() and not (source / ".metadata").exists():
            path = first_existing(source, ("model.bin",), "give the .bin file itself")
        return read_tensors(path), path

    def rename(self, weights: dict[str, Tensor], where: str) -> dict[str, Tensor]:
        """Return the weights under their names of 2020, without `module.`."""
        result: dict[str, Tensor] = {}
        for name, tensor in weights.items():
            plain = name.removeprefix("module.")
            plain = rename_by(GENERATIONS, plain) or plain
            if plain in result and not equal(result[plain], tensor):
                raise DataError(f"{where}: two tensors for {plain}, which differ; one is {name}")
            result[plain] = tensor
        if "target.output_layer.weight" in result:  # its bias became optional in 2023
            rows = len(result["target.output_layer.weight"])
            result.setdefault("target.output_layer.bias", torch.zeros(rows))
        return result

    def describe(
        self, source: Path, weights: Mapping[str, Tensor], spec: ConvertSpec
    ) -> dict[str, Any]:
        """Return the spec's settings, with the reference's modes written out where it is silent.

        With `reference: uer-2020` they stay as they are written: the preset says the same.
        """
        if spec.architecture is None:
            raise ConfigError(
                f"{source}: the format does not say what network it holds; give `architecture` in "
                "--spec"
            )
        targets = find_targets(weights) if spec.targets is None else spec.targets
        architecture = spec.architecture.model_dump(mode="json")
        sections = [target.section() for target in targets]
        if spec.reference != "uer-2020":
            architecture = {
                where: part and state_modes(ROOMS[where], part)
                for where, part in architecture.items()
            }
            sections = [state_modes(TARGETS, section) for section in sections]
        return {
            "architecture": architecture,
            "targets": sections,
            "reference": spec.reference or "none",
            "tokenizer": spec.tokenizer or "bert",
            "lowercase": True if spec.lowercase is None else spec.lowercase,
            "special_tokens": any(target.name in ("mlm", "nsp", "cls") for target in targets),
        }

    def place(self, name: str, metadata: Mapping[str, Any]) -> Place | None:
        """Return where our tensor stands in a checkpoint of the reference."""
        if theirs := rename_by(FIRST_CONVOLUTIONS, name):
            return _first_convolution(theirs)
        for pattern, kind in LATER_CONVOLUTIONS:
            if found := re.fullmatch(pattern, name):
                return _later_convolution(f"encoder.{kind}.{int(found[1]) - 1}.{found[2]}")
        theirs = rename_by(NAMES, name) or _by_model(name, metadata)
        if theirs is not None and "layer_norm" in theirs:
            theirs = theirs.replace(".weight", ".gamma").replace(".bias", ".beta")
        return None if theirs is None else Place(theirs)

    def copies(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """Return the softmax matrices that are the word embedding here; its code has them twice."""
        tied = [section["name"] for section in metadata.get("targets", []) if section.get("tied")]
        places = [self.place(f"targets.{name}.output.weight", metadata) for name in tied]
        return {place.name: tensors[WORD] for place in places if place is not None}

    def check(self, model: PortableModel) -> None:
        """Raise ConfigError if the reference has no such model; note what it computes otherwise."""
        sections = configured_sections(model.metadata)
        for where, section in sections.items():
            for (name, option), value in FIXED_OPTIONS.items():
                if section["name"] == name and section[option] != value:
                    raise ConfigError(
                        f"{where}.{option}: {section[option]}; the format uer has {value} only"
                    )
            if section.get("norm") == "rms" or (where, section["name"]) == ("subencoder", "gru"):
                found = "norm: rms" if section.get("norm") == "rms" else "name: gru"
                raise ConfigError(f"{where}.{found}; the format uer has none")
        self._note_modes(model, sections)
        ids = TokenIds(**model.metadata["token_ids"])
        wrong = [f"[{k.upper()}] at {v}" for k, v in FIXED_IDS.items() if getattr(ids, k) != v]
        if wrong:
            model.notes.append(
                f"the reference's code expects {', '.join(wrong)}; this vocabulary has them "
                "elsewhere, so its programs misread texts"
            )

    def _note_modes(self, model: PortableModel, sections: Mapping[str, dict[str, Any]]) -> None:
        """Note the options for which its code has one value, and how much they matter."""
        different = [
            f"{where}.{option}: {section[option]}, there {value}"
            for where, section in sections.items()
            for option, value in modes_of(section["name"]).items()
            if option in section and section[option] != value
        ]
        if not different:
            return
        theirs = {
            where: {
                option: modes_of(section["name"]).get(option, value)
                for option, value in section.items()
            }
            for where, section in sections.items()
        }
        gap = model.gap(theirs)
        model.notes.append(
            f"the reference's code computes otherwise ({'; '.join(different)}): its hidden states "
            f"differ by up to {gap:g}"
        )

    def save(self, tensors: dict[str, Tensor], model: PortableModel, folder: Path) -> None:
        """Write model.bin, and config.json with the sizes that its programs ask for."""
        # A file object, because torch would write the file's temporary name into it.
        with (folder / "model.bin").open("wb") as file:
            torch.save(tensors, file)
        text = json.dumps(hyperparameters(model), indent=2) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
        if TABLE in model.tensors:
            characters = list_characters(model.vocabulary, model.tensors)
            lines = "".join(f"{character}\n" for character in characters)
            (folder / CHARACTERS).write_text(lines, encoding="utf-8")

    def tables(
        self, source: Path, vocabulary: Vocabulary, tensors: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the characters of every token, for a subencoder, from sub_vocab.txt."""
        if ROWS not in tensors:
            return {}
        path = (source if source.is_dir() else source.parent) / CHARACTERS
        if not path.exists():
            raise MissingError(f"{path}: no such file; it holds the characters of the subencoder")
        characters = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        if len(characters) != (rows := len(tensors[ROWS])):
            raise ConfigError(
                f"{path}: {len(characters)} characters, the subencoder has rows for {rows}; give "
                "those it was made with"
            )
        return {TABLE: spell_by(characters, vocabulary)}


def _first_convolution(name: str) -> Place:
    if name.endswith("bias"):
        return Place(name)
    return Place(
        name,
        pack=lambda ours: ours.transpose(1, 2).unsqueeze(1),
        unpack=lambda theirs: theirs.squeeze(1).transpose(1, 2),
    )


def _later_convolution(name: str) -> Place:
    if name.endswith("bias"):
        return Place(name)
    return Place(
        name, pack=lambda ours: ours.unsqueeze(-1), unpack=lambda theirs: theirs.squeeze(-1)
    )


def _by_model(name: str, metadata: Mapping[str, Any]) -> str | None:
    """Return the name of what is called by the model it belongs to."""
    if name.startswith("targets.nsp.output."):
        layer = "nsp_linear_2" if nsp_has_pooler(metadata) else "linear"
        return name.replace("targets.nsp.output", f"target.{layer}")
    if name.startswith(HEAD + "output."):
        layer = "output_layer" if metadata["task"]["name"] == "tag" else "output_layer_2"
        return name.replace(HEAD + "output", layer)
    return None


def nsp_has_pooler(metadata: Mapping[str, Any]) -> bool:
    """Return whether the target nsp of a model has a hidden layer."""
    sections = {section["name"]: section for section in metadata["targets"]}
    default = metadata["reference"] == "none" or "mlm" in sections
    return bool(sections["nsp"].get("pooler", default))


def find_targets(weights: Mapping[str, Tensor]) -> list[Component]:
    """Return the targets whose tensors (names of 2020) are there."""
    found: list[dict[str, Any]] = []
    if "target.mlm_linear_1.weight" in weights:
        found.append({"name": "mlm"})
    if "target.nsp_linear_1.weight" in weights:
        found.append({"name": "nsp", "pooler": True})
    elif "target.linear.weight" in weights:
        found.append({"name": "nsp", "pooler": False})
    if "target.decoder.weight_ih_l0" in weights:
        size = weights["target.decoder.weight_ih_l0"].shape[-1]
        found.append({"name": "s2s", "embedding_size": size})
    elif "target.output_layer.weight" in weights:
        halves = "encoder.rnn_forward.weight_ih_l0" in weights
        found.append({"name": "bilm" if halves else "lm"})
    if "target.linear_2.weight" in weights:
        found.append({"name": "cls", "num_labels": len(weights["target.linear_2.weight"])})
    return [Component.model_validate(section) for section in found]


def spell_by(characters: Sequence[str], vocabulary: Vocabulary) -> Tensor:
    """Return the ids of the characters of every token, (V, S) int64, 0 behind the last."""
    ids = {character: number for number, character in enumerate(characters)}
    unknown = min(FIXED_IDS["unk"], len(characters) - 1)
    tokens = [token[:LONGEST_WORD] for token in vocabulary.tokens]
    table = torch.zeros(len(tokens), max(map(len, tokens)), dtype=torch.int64)
    for row, token in enumerate(tokens):
        table[row, : len(token)] = torch.tensor([ids.get(c, unknown) for c in token])
    return table


def list_characters(vocabulary: Vocabulary, tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the characters of a subencoder in the order of their ids, [PAD] first."""
    names = {0: "[PAD]"}
    for token, row in zip(vocabulary.tokens, tensors[TABLE].tolist(), strict=True):
        names |= {number: c for c, number in zip(token, row, strict=False) if number}
    return [names.get(number, f"[unused{number}]") for number in range(len(tensors[ROWS]))]


def hyperparameters(model: PortableModel) -> dict[str, Any]:
    """Return what the reference's configuration file says of a model."""
    sections = configured_sections(model.metadata)
    encoder, embedding = sections["encoder"], sections["embedding"]
    # Its cnn does not count the first convolution.
    layers = encoder["num_layers"] - (encoder["name"] == "cnn")
    values = {
        "emb_size": embedding["size"],
        "feedforward_size": encoder.get("feedforward_size"),
        "hidden_size": encoder["hidden_size"],
        "heads_num": encoder.get("num_heads"),
        "layers_num": layers,
        "kernel_size": encoder.get("kernel_size"),
        "block_size": encoder.get("block_size"),
        "dropout": encoder.get("dropout", embedding["dropout"]),
    }
    return {key: value for key, value in values.items() if value is not None}
