"""Our own format: a safetensors file that carries its description, or a directory with it."""

from pathlib import Path

from pipeline.converters import Converter, PortableModel, require_as_stated
from pipeline.registry import CONVERTERS
from pipeline.spec import ConvertSpec
from pipeline.training.checkpoint import (
    load_tensors,
    model_file,
    require_vocabulary,
    save_tensors,
)
from pipeline.training.inference import find_vocabulary


@CONVERTERS.register("native")
class NativeConverter(Converter):
    """{model.safetensors, vocab.txt, architecture.yaml}, or the .safetensors file alone."""

    files = frozenset({"model.safetensors"})
    weights = "model.safetensors"

    def read(self, source: Path, vocab: Path | None, spec: ConvertSpec) -> PortableModel:
        """Return the model, every byte checked. Raises ConfigError if a spec says otherwise."""
        tensors, metadata = load_tensors(model_file(source))
        require_as_stated(metadata, spec, str(source))
        vocabulary = find_vocabulary(source, vocab)
        require_vocabulary(metadata, vocabulary.digest, str(source))
        weights = metadata.pop("weights")
        return PortableModel(tensors, metadata, vocabulary, weights)

    def write(self, model: PortableModel, folder: Path) -> str:
        """Write model.safetensors with the metadata, a stamp among them."""
        return save_tensors(folder / "model.safetensors", model.tensors, model.metadata)
