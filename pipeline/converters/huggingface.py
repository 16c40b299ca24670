"""Hugging Face: a directory that AutoModel and AutoTokenizer of `transformers` load."""

import json
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.converters import WORD, PortableModel
from pipeline.converters.bert import (
    CARRIED,
    bert_name,
    bert_place,
    bert_settings,
    describe_network,
    head_kind,
    note_differences,
    read_settings,
    require_layers,
)
from pipeline.converters.comparing import Batch
from pipeline.converters.foreign import ForeignConverter, Place, equal, matches
from pipeline.converters.tensor_files import first_existing, read_tensors, require_file
from pipeline.converters.tokenizer_files import (
    FILES,
    find_folder_vocabulary,
    read_lowercase,
    write_tokenizer,
)
from pipeline.errors import ConfigError, DataError, MissingError, UnsafeError, printable
from pipeline.registry import CONVERTERS
from pipeline.spec import ConvertSpec
from pipeline.strict import read_json
from pipeline.text.vocabulary import Vocabulary

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
WEIGHTS = ("model.safetensors", INDEX, "pytorch_model.bin")
DECODER = "cls.predictions.decoder"
# Classes of `transformers` that are run to compare; no other is ever taken from a file.
CLASSES = (
    "BertForPreTraining",
    "BertForMaskedLM",
    "BertForNextSentencePrediction",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertModel",
)


@CONVERTERS.register("huggingface")
class HuggingFaceConverter(ForeignConverter):
    """config.json, model.safetensors, tokenizer.json, tokenizer_config.json, vocab.txt."""

    files = frozenset({CONFIG, "model.safetensors", *FILES})
    weights = "model.safetensors"
    dropped = ("*position_ids", "*token_type_ids")
    carried = CARRIED
    implied = (f"{DECODER}.weight",)
    has_padding_segment = False

    def load(self, source: Path) -> tuple[dict[str, Tensor], Path]:
        """Return the tensors as they are stored, and the file to name in messages."""
        require_folder(source)
        path = first_existing(source, WEIGHTS, "a directory of `transformers` is needed")
        return (read_parts(path) if path.name == INDEX else read_tensors(path)), path

    def rename(self, weights: dict[str, Tensor], where: str) -> dict[str, Tensor]:
        """Return the weights under the names of BertForPreTraining."""
        alone = not any(name.removeprefix("module.").startswith("bert.") for name in weights)
        result: dict[str, Tensor] = {}
        for name, tensor in weights.items():
            plain = name.removeprefix("module.")
            plain = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", plain)
            plain = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", plain)
            if alone and matches(plain, ("embeddings.*", "encoder.*", "pooler.*")):
                plain = f"bert.{plain}"
            if plain in result and not equal(result[plain], tensor):
                raise DataError(f"{where}: two tensors for {plain}, which differ; one is {name}")
            result[plain] = tensor
        if f"{DECODER}.bias" in result:  # one of two names for one tensor; either may be missing
            result.setdefault("cls.predictions.bias", result[f"{DECODER}.bias"])
        return result

    def describe(
        self, source: Path, weights: Mapping[str, Tensor], spec: ConvertSpec
    ) -> dict[str, Any]:
        """Return what config.json and the tokenizer's files say."""
        where = str(source / CONFIG)
        settings = read_settings(read_json(source / CONFIG), where)
        require_layers(settings, weights, str(source))
        described = describe_network(settings, weights, spec, where)
        lowercase = read_lowercase(source)
        stated = {"tokenizer": spec.tokenizer, "lowercase": spec.lowercase}
        for key, found in {"tokenizer": "bert", "lowercase": lowercase}.items():
            if stated[key] not in (None, found):
                raise ConfigError(f"--spec {key}: {stated[key]}; {source} says {found}")
        return {**described, "tokenizer": "bert", "lowercase": lowercase}

    def find_vocab(self, source: Path) -> Vocabulary | None:
        """Return the vocabulary of vocab.txt or tokenizer.json, None if there is none."""
        return find_folder_vocabulary(source)

    def place(self, name: str, metadata: Mapping[str, Any]) -> Place | None:
        """Return where our tensor stands in BertForPreTraining."""
        theirs = bert_name(name, metadata)
        return None if theirs is None else bert_place(theirs)

    def copies(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """Return the second name of the softmax's bias and, if it is tied, of its matrix."""
        result = {}
        if "targets.mlm.output.bias" in tensors:
            result[f"{DECODER}.bias"] = tensors["targets.mlm.output.bias"]
            if "targets.mlm.output.weight" not in tensors:
                result[f"{DECODER}.weight"] = tensors[WORD]
        return result

    def check(self, model: PortableModel) -> None:
        """Raise ConfigError if the model is not BERT-shaped; note norms that differ."""
        bert_settings(model, "Hugging Face")
        note_differences(model, "Hugging Face")

    def arrange(self, packed: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors under the names of BertModel where there is no head."""
        if any(name.startswith(("cls.", "classifier.")) for name in packed):
            return packed
        return {name.removeprefix("bert."): tensor for name, tensor in packed.items()}

    def save(self, tensors: dict[str, Tensor], model: PortableModel, folder: Path) -> None:
        """Write config.json, weights and tokenizer."""
        ids, settings = model.metadata["token_ids"], bert_settings(model, "Hugging Face")
        tied = f"{DECODER}.bias" in tensors and f"{DECODER}.weight" not in tensors
        config = {
            "architectures": [class_of(tensors, model.metadata)],
            "model_type": "bert",
            **settings,
            "pad_token_id": ids["pad"],
            "tie_word_embeddings": tied,
            "dtype": "float32",
        }
        if labels := model.metadata.get("labels"):
            config["id2label"] = {str(i): label for i, label in enumerate(labels)}
            config["label2id"] = {label: i for i, label in enumerate(labels)}
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (folder / CONFIG).write_text(text, encoding="utf-8")
        plain = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
        save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
        tokenizer, lowercase = model.metadata["tokenizer"], model.metadata["lowercase"]
        positions = settings["max_position_embeddings"]
        write_tokenizer(folder, tokenizer, model.vocabulary, lowercase, positions)

    @torch.no_grad()
    def run(self, folder: Path, batch: Batch) -> dict[str, Tensor] | str:
        """Return what `transformers` computes from a folder, or why it cannot."""
        try:
            library: Any = import_module("transformers")
        except ImportError:
            return "transformers is not installed"
        if not (folder / "model.safetensors").is_file():
            return "only model.safetensors is handed to transformers"
        library.logging.set_verbosity_error()
        library.logging.disable_progress_bar()
        stated = read_json(folder / CONFIG).get("architectures") or ["BertModel"]
        name = stated[0] if stated[0] in CLASSES else "BertModel"
        theirs = getattr(library, name).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
        output = theirs.eval()(
            input_ids=batch.token_ids,
            attention_mask=batch.inside.long(),
            token_type_ids=(batch.segment_ids == 2).long(),
            output_hidden_states=True,
        )
        found = {"hidden": output.hidden_states[-1]}
        if name == "BertForMaskedLM":
            found["mlm"] = output.logits
        if name == "BertForNextSentencePrediction":
            found["nsp"] = output.logits
        if name == "BertForPreTraining":
            found |= {"mlm": output.prediction_logits, "nsp": output.seq_relationship_logits}
        return found


def require_folder(source: Path) -> None:
    """Raise unless the source is a directory."""
    if not source.exists():
        raise MissingError(f"{source}: no such directory")
    if not source.is_dir() or (source / ".metadata").exists():
        require_file(source)
        raise DataError(f"{source}: not a directory; config and vocabulary stand beside weights")


def read_parts(index: Path) -> dict[str, Tensor]:
    """Return the tensors of weights in several files.

    Raises UnsafeError for a file elsewhere, MissingError for one that is not there, and DataError
    where index and files disagree.
    """
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
        raise DataError(f"{index}: no weight_map of tensors to files")
    files = sorted(set(places.values()))
    for file in files:
        if file != Path(file).name or file.startswith("."):
            raise UnsafeError(f"{index}: {printable(file)} is not a file of this directory")
        if not (index.parent / file).exists():
            raise MissingError(f"{index}: names {printable(file)}, which is not there")
    result: dict[str, Tensor] = {}
    for file in files:
        part = read_tensors(index.parent / file)
        for name, tensor in part.items():
            if places.get(name) != file or name in result:
                raise DataError(
                    f"{index.parent / file}: tensor {name} stands here; the index says "
                    f"{printable(places.get(name))}"
                )
            result[name] = tensor
    if missing := sorted(places.keys() - result.keys()):
        raise DataError(f"{index}: {len(missing)} tensors are in no file, first {missing[0]}")
    return result


def class_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """Return the class of `transformers` for these tensors."""
    if "classifier.weight" in tensors:
        return str(head_kind(metadata))
    if "cls.predictions.bias" in tensors:
        with_nsp = "cls.seq_relationship.weight" in tensors
        return "BertForPreTraining" if with_nsp else "BertForMaskedLM"
    with_nsp = "cls.seq_relationship.weight" in tensors
    return "BertForNextSentencePrediction" if with_nsp else "BertModel"
