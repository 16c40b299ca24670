"""Probes: ways to look into a trained model.

A probe is one class in one file. Its Config holds its options; `run` reads what `--in` names,
writes to the output it is given and returns its books: what was read, what was left out and why,
and the scores where there are any.
"""

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar, Literal, NamedTuple, Protocol

import torch
from pydantic import Field
from torch import Tensor

from pipeline.artifacts import digest_file, make_stamp, read_tensor_stamp
from pipeline.errors import ConfigError, DataError, UsageError
from pipeline.registry import ComponentConfig
from pipeline.text.rows import Ragged
from pipeline.text.tables import iter_lines, open_regular, standard_input
from pipeline.text.vocabulary import Vocabulary
from pipeline.training.checkpoint import model_file
from pipeline.training.pretrained import PretrainedModel, open_pretrained

WINDOW_LINES = 1024

Layer = Annotated[int, Field(ge=0)] | Literal["last"]


class Line(NamedTuple):
    """A line of the input; numbers count from 1."""

    number: int
    text: str


@dataclass(frozen=True)
class Request:
    """What a probe is to look at.

    source: None stands for `given`, the lines of the command line, or else for standard input.
    """

    model: Path | None
    vocab: Path | None
    source: Path | None
    device: torch.device
    given: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """The input's name in messages."""
        if self.source is not None:
            return str(self.source)
        return "--line" if self.given else "standard input"

    def open_model(self) -> PretrainedModel:
        """Return the model. Raises UsageError without --model, and as open_pretrained."""
        if self.model is None:
            raise UsageError("--model is missing; give a .safetensors file or a model directory")
        return open_pretrained(self.model, self.vocab, self.device)

    def iter_lines(self) -> Iterator[Line]:
        """Yield the lines of the input. Raises MissingError, and DataError for other than text."""
        if self.source is None:
            # Back to the bytes that were typed, whatever the locale says.
            given = io.BytesIO(b"".join(os.fsencode(line) + b"\n" for line in self.given))
            file = given if self.given else standard_input()
            yield from map(Line._make, iter_lines(file, self.where))
            return
        with open_regular(self.source) as file:
            yield from map(Line._make, iter_lines(file, self.where))

    def iter_windows(self, size: int = WINDOW_LINES) -> Iterator[list[Line]]:
        """Yield `size` lines at a time: bounded memory, and enough to batch by length."""
        lines = self.iter_lines()
        while window := list(islice(lines, size)):
            yield window


class Output(Protocol):
    """Where a probe writes: a file that appears whole or not at all, or standard output."""

    path: Path | None

    def write_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows as they come: TSV with a header, or JSON lines by the file's name."""

    def write_text(self, lines: Iterable[str]) -> None:
        """Write lines, which end in a line end, as they come."""

    def write_model(
        self, tensors: dict[str, Tensor], metadata: dict[str, Any], vocabulary: Vocabulary
    ) -> None:
        """Write a model directory."""

    def open_binary(self) -> BinaryIO:
        """Return a binary file to write to; whoever gave the output closes it."""
        ...


class Probe(ABC):
    """One way to look into a model. Subclasses are registered and have a nested Config."""

    Config: ClassVar[type[ComponentConfig]]
    name: ClassVar[str]
    reads: ClassVar[str] = ""
    """What --in holds; empty: the probe reads nothing."""
    needs: ClassVar[str] = ""
    """Pre-training target whose head it needs; empty: any model will do."""
    files: ClassVar[tuple[str, ...]] = ()
    """Options that name files."""

    def __init__(self, config: Any, request: Request):
        self.config = config
        self.request = request

    @classmethod
    def settings(cls, config: Any, given: Sequence[str] = ()) -> dict[str, Any]:
        """Return the settings of a stamp: name, options that name no files, lines given inline."""
        options = config.model_dump(mode="json", exclude=set(cls.files))
        return {"probe": cls.name, **options, **({"lines": list(given)} if given else {})}

    def stamp(self) -> dict[str, Any]:
        """Return the stamp of what is computed; files are named by their digests."""
        request = self.request
        model = request.model and read_tensor_stamp(model_file(request.model), verify=False)
        files = {name: getattr(self.config, name) for name in self.files}
        inputs = {
            "model": model and model["weights"],
            "vocabulary": model and model["vocabulary"],
            "in": request.source and digest_file(request.source),
            **{name: path and digest_file(Path(path)) for name, path in files.items()},
        }
        return make_stamp("probe", self.settings(self.config, request.given), inputs, "torch")

    @abstractmethod
    def run(self, output: Output) -> dict[str, Any]:
        """Write what is seen and return the books, JSON values by name."""


def find_layer(layer: Layer, count: int) -> int:
    """Return the number of a layer, of `count` with the embedding. Raises ConfigError."""
    if layer == "last":
        return count - 1
    if layer >= count:
        raise ConfigError(f"layer: {layer}; the model has layers 0 (embedding) to {count - 1}")
    return layer


def check_lengths(rows: Ragged, lines: Sequence[Line], room: int | None, where: str) -> None:
    """Raise DataError for the first text of more than `room` tokens; None: there is no limit."""
    if room is None or not (rows.lengths > room).any():
        return
    first = int((rows.lengths > room).argmax())
    raise DataError(
        f"{where}:{lines[first].number}: {rows.lengths[first]} tokens; the model has positions for "
        f"{room}, shorten the text"
    )


def join_tokens(tokens: Sequence[str], tokenizer: str) -> str:
    """Return tokens as text for a person.

    space: words with a space between. Others: no spaces, but between two words of letters or
    digits that are not ideographs; pieces (##) join the token before them.
    """
    if tokenizer == "space":
        return " ".join(tokens)
    text = ""
    for token in tokens:
        if tokenizer == "bert" and token.startswith("##"):
            text += token[2:]
            continue
        spaced = text and tokenizer == "bert" and _is_letter(text[-1]) and _is_letter(token[0])
        text += f" {token}" if spaced else token
    return text


def _is_letter(character: str) -> bool:
    """Whether a character belongs to a script that is written with spaces between words."""
    return character.isalnum() and character < "\u2e80"
