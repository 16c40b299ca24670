"""Google BERT: a TensorFlow checkpoint with bert_config.json, as BERT and ERNIE were published.

Needs TensorFlow, an optional extra (`pip install pretrain-zoo[tensorflow]`, 1.6 GB), best in an
environment of its own. Its softmax is the word embedding: an untied one is lost on the way out.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.converters import WORD, PortableModel
from pipeline.converters.bert import (
    CARRIED,
    bert_name,
    bert_place,
    bert_settings,
    describe_network,
    find_bert_targets,
    note_differences,
    read_settings,
    require_layers,
)
from pipeline.converters.foreign import ForeignConverter, Place
from pipeline.converters.tensorflow_file import read_checkpoint, write_checkpoint
from pipeline.errors import ConfigError, DataError, MissingError
from pipeline.registry import CONVERTERS
from pipeline.spec import ConvertSpec
from pipeline.strict import read_json

CONFIG = "bert_config.json"
CHECKPOINT = "bert_model.ckpt"
DATA = f"{CHECKPOINT}.data-00000-of-00001"
SOFTMAX = "targets.mlm.output.weight"

# Names of a BERT (converters/bert.py) -> variables of TensorFlow, after dots became slashes.
VARIABLES = (
    (r"(.*)/layer/(\d+)/(.*)", r"\1/layer_\2/\3"),
    (r"(.*/LayerNorm)/weight", r"\1/gamma"),
    (r"(.*/LayerNorm)/bias", r"\1/beta"),
    (r"(.*_embeddings)/weight", r"\1"),
    (r"cls/seq_relationship/weight", r"cls/seq_relationship/output_weights"),
    (r"cls/seq_relationship/bias", r"cls/seq_relationship/output_bias"),
    (r"cls/predictions/bias", r"cls/predictions/output_bias"),
    (r"(.*)/weight", r"\1/kernel"),
)
BACK = (
    (r"(.*)/layer_(\d+)/(.*)", r"\1/layer/\2/\3"),
    (r"(.*/LayerNorm)/gamma", r"\1/weight"),
    (r"(.*/LayerNorm)/beta", r"\1/bias"),
    (r"(.*_embeddings)", r"\1/weight"),
    (r"(cls/\w+)/output_weights", r"\1/weight"),
    (r"(cls/\w+)/output_bias", r"\1/bias"),
    (r"(.*)/kernel", r"\1/weight"),
)


@CONVERTERS.register("google")
class GoogleConverter(ForeignConverter):
    """bert_config.json, vocab.txt and bert_model.ckpt.{index,data-00000-of-00001}."""

    files = frozenset({CONFIG, f"{CHECKPOINT}.index", DATA})
    weights = f"{CHECKPOINT}.index"
    dropped = ("global_step", "*/adam_m", "*/adam_v", "*/lamb_m", "*/lamb_v")
    carried = CARRIED
    has_padding_segment = False

    def load(self, source: Path) -> tuple[dict[str, Tensor], Path]:
        """Return the variables by name, and the checkpoint to name in messages."""
        prefix = find_prefix(source)
        return read_checkpoint(prefix), prefix

    def rename(self, weights: dict[str, Tensor], where: str) -> dict[str, Tensor]:
        """Return the variables under the names of a BERT; kernels are turned."""
        return {from_variable(k): v.T if is_kernel(k) else v for k, v in weights.items()}

    def arrange(self, packed: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors as variables of TensorFlow; kernels are turned."""
        variables = {to_variable(name): tensor for name, tensor in packed.items()}
        return {k: v.T.contiguous() if is_kernel(k) else v for k, v in variables.items()}

    def describe(
        self, source: Path, weights: Mapping[str, Tensor], spec: ConvertSpec
    ) -> dict[str, Any]:
        """Return what bert_config.json says, or else the spec."""
        path = (source if source.is_dir() else source.parent) / CONFIG
        if path.exists():
            settings = read_settings(read_json(path), str(path))
            require_layers(settings, weights, str(source))
            described = describe_network(settings, weights, spec, str(path))
        elif spec.architecture is not None:
            targets = find_bert_targets(weights, {"tied": True})
            stated = targets if spec.targets is None else [t.section() for t in spec.targets]
            described = {
                "architecture": spec.architecture.model_dump(mode="json"),
                "targets": stated,
                "reference": spec.reference or "none",
                "special_tokens": True,
            }
        else:
            raise ConfigError(f"{path}: no such file; give `architecture` in --spec")
        lowercase = True if spec.lowercase is None else spec.lowercase
        return {**described, "tokenizer": spec.tokenizer or "bert", "lowercase": lowercase}

    def place(self, name: str, metadata: Mapping[str, Any]) -> Place | None:
        """Return where our tensor stands in a BERT."""
        theirs = None if name.startswith("head.") else bert_name(name, metadata)
        return None if theirs is None else bert_place(theirs)

    def check(self, model: PortableModel) -> None:
        """Raise ConfigError if the model is not BERT-shaped; tie its softmax, and say so."""
        bert_settings(model, "google")
        note_differences(model, "google")
        if SOFTMAX not in model.tensors:
            return
        lost = model.tensors.pop(SOFTMAX)
        gap = float((lost - model.tensors[WORD]).abs().max())
        model.notes.append(
            "google's softmax is the word embedding; this model's own is lost, which differs by up "
            f"to {gap:.3g}"
        )
        model.metadata["targets"] = [
            {**section, "tied": True} if section["name"] == "mlm" else section
            for section in model.metadata["targets"]
        ]

    def save(self, tensors: dict[str, Tensor], model: PortableModel, folder: Path) -> None:
        """Write the checkpoint and bert_config.json."""
        settings = bert_settings(model, "google")
        text = json.dumps(settings, indent=2) + "\n"
        (folder / CONFIG).write_text(text, encoding="utf-8")
        write_checkpoint(folder / CHECKPOINT, tensors)


def find_prefix(source: Path) -> Path:
    """Return the path of a checkpoint without its endings. Raises MissingError, DataError."""
    if not source.is_dir():
        return source.with_name(source.name.removesuffix(".index"))
    found = sorted(source.glob("*.index"))
    if not found:
        raise MissingError(f"{source}: no {CHECKPOINT}.index; a TensorFlow checkpoint is needed")
    if len(found) > 1:
        raise DataError(f"{source}: {len(found)} checkpoints; name one, as {found[0]}")
    return find_prefix(found[0])


def to_variable(name: str) -> str:
    """Return the variable of TensorFlow for a tensor of a BERT."""
    return _rewrite(VARIABLES, name.replace(".", "/"))


def from_variable(name: str) -> str:
    """Return the name in a BERT of a variable of TensorFlow."""
    return _rewrite(BACK, name).replace("/", ".")


def _rewrite(rules: tuple[tuple[str, str], ...], name: str) -> str:
    """Return a name after the rule of its layer, and the first that fits of the others."""
    (pattern, template), *others = rules
    name = re.sub(f"^{pattern}$", template, name)
    for pattern, template in others:
        if found := re.fullmatch(pattern, name):
            return found.expand(template)
    return name


def is_kernel(variable: str) -> bool:
    """Return whether TensorFlow stores a variable as (in, out), where others have (out, in)."""
    return variable.endswith("/kernel")
