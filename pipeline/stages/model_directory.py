"""Directories of models: files that appear together, the weights last: where they are, all is."""

import os
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts import scratch_folder, sync, write_text
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.converters import Converter, PortableModel


def file_names(converter: "Converter") -> set[str]:
    """Return the names of all files that a converter's directory may hold."""
    from pipeline.converters import ARCHITECTURE, RECORD, VOCABULARY

    return {*converter.files, converter.weights, ARCHITECTURE, RECORD, VOCABULARY}


def require_free(out: Path, names: Set[str]) -> None:
    """Raise UsageError if `out` holds anything but files of these names."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is a file; a directory is written")
    strange = {path.name for path in out.iterdir()} - names if out.exists() else set()
    if strange:
        raise UsageError(f"--out {out}: holds {min(strange)}; choose an empty or new directory")


@contextmanager
def published_folder(out: Path, weights: str) -> Iterator[Path]:
    """Give an empty folder whose files move to `out` when the block ends well, `weights` last."""
    with scratch_folder(out) as folder:
        yield folder
        out.mkdir(parents=True, exist_ok=True)
        (out / weights).unlink(missing_ok=True)
        for path in sorted(folder.iterdir(), key=lambda path: (path.name == weights, path.name)):
            path.chmod(0o444)
            sync(path)
            os.replace(path, out / path.name)
        sync(out)


def describe_model(model: "PortableModel", folder: Path) -> None:
    """Write vocabulary and architecture, which stand beside the weights in every format."""
    from pipeline.converters import ARCHITECTURE, VOCABULARY

    write_text(folder / VOCABULARY, "".join(f"{token}\n" for token in model.vocabulary.tokens))
    write_text(folder / ARCHITECTURE, model.architecture_text())
