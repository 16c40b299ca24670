"""Where text comes from: the settings of the stage fetch, which are also sections of config/.

`fetch --spec` takes a corpus (CorpusSpec), a data set (DatasetSpec) or one file (Source).
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from pipeline.spec import ComponentField, CorpusFormat, Name, Settings, Share

Part = Literal["train", "dev", "test"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PARTS: tuple[Part, ...] = ("train", "dev", "test")
DEFAULT_MIRROR = Path("data/mirror")


class Source(Settings):
    """One file: `package` + `file`, or `path` and/or `url`, or `dataset` + `part`."""

    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] | None = None
    """Name of an installed Python package; it is looked into, never imported."""
    file: str | None = None
    """Path inside the package."""
    url: Annotated[str, Field(pattern=r"^https?://[^\s/]+/\S+$")] | None = None
    """Address of a public file; with a path too, it is downloaded where that is not found."""
    path: str | None = None
    """Relative path, looked up in the mirror first, then in the working folder."""
    dataset: Name | None = None
    """Name of a fetched data set; its texts become a corpus."""
    part: Part | None = None
    """Which part of the data set."""
    sha256: Sha256 | None = None
    """SHA-256 of the file; may be left out for a path only (then what is found is recorded)."""
    label: str | int | None = None
    """Label of every line of a file of plain texts."""
    words: Literal["spaced", "joined", "entities"] | None = None
    """The lines are words with tags, `word/tag word/tag`. spaced, joined: only the words are kept,
    with a space between them or none. entities: rows for the task tag, see text/tagged_words.py."""

    @model_validator(mode="after")
    def _one_place(self) -> "Source":
        places = [key for key in ("package", "url", "path", "dataset") if getattr(self, key)]
        if places == ["url", "path"]:
            places = ["url"]
        if len(places) != 1:
            found = " and ".join(places) or "none"
            raise ValueError(f"give exactly one of package, url, path, dataset; there is {found}")
        for place, partner in (("package", "file"), ("dataset", "part")):
            if (places == [place]) != (getattr(self, partner) is not None):
                raise ValueError(f"{place} and {partner} go together")
        if places[0] in {"package", "url"} and self.sha256 is None:
            raise ValueError(f"{places[0]}: sha256 is missing; a source from elsewhere is pinned")
        if places == ["dataset"] and self.sha256 is not None:
            raise ValueError("dataset: no sha256 here; the data set's own ledger holds it")
        return self

    @property
    def title(self) -> str:
        """Return the source's name in messages and ledgers."""
        if self.package:
            return f"{self.package}:{self.file}"
        return self.path or self.url or f"{self.dataset}/{self.part}"


class CorpusSpec(Settings):
    """A pre-training corpus: sources of one format, one after another.

    `fetch` writes `OUT` (UTF-8, lines end in \\n) and `OUT` with the suffix `.ledger.json`.
    """

    sources: Annotated[list[Source], Field(min_length=1)]
    """Files, in the order in which they are joined."""
    format: CorpusFormat = "lines"
    """lines: a document a line. documents: a sentence a line, a blank line between documents.
    labelled: label, tab, text [, tab, second text]. parallel: source, tab, target."""
    sentences: Literal["middle", "stops"] | None = None
    """With format documents: each line of the sources, or row of a data set, is a document, and is
    cut in the middle or behind full stops; the two texts of a pair are two sentences."""
    language: str | None = None
    """Language code, for people."""
    licence: str = "unknown"
    """Licence of the text, for people."""
    description: str | None = None
    """One sentence for people."""
    origin: str | None = None
    """Where the text comes from, for people."""
    needs: str | None = None
    """What the user must supply, and in which format, where no public file can be fetched."""
    duplicates: Literal["keep", "drop"] = "keep"
    """Exact repeats of documents within the corpus: kept or dropped, counted in both cases."""
    bad_rows: Literal["fail", "skip"] = "fail"
    """What a malformed line does: stop the stage, or be counted and left out."""

    @model_validator(mode="after")
    def _documents_of_sentences(self) -> "CorpusSpec":
        if self.sentences and self.format != "documents":
            raise ValueError(f"sentences: goes with format documents, not {self.format}")
        return self


def _sum_to_one(shares: dict[Part, float]) -> dict[Part, float]:
    if abs(sum(shares.values()) - 1) > 1e-9:
        raise ValueError(f"the shares sum to {sum(shares.values()):g}; they must sum to 1")
    return shares


class SplitSpec(Settings):
    """Labelled text that is cut into parts here, by the digest of the text."""

    sources: list[Source] = Field(default_factory=list)
    """Labelled files; none: the file given for `train` is cut."""
    shares: Annotated[dict[Part, Share], Field(min_length=2), AfterValidator(_sum_to_one)]
    """Share of each part; equal texts always fall into the same part."""


class DatasetFilesSpec(Settings):
    """Parts of a data set that exist as files."""

    train: Source | None = None
    """Training rows."""
    dev: Source | None = None
    """Rows on which epochs and rates are chosen."""
    test: Source | None = None
    """Rows that are only scored."""


class DatasetSpec(Settings):
    """A labelled data set: files, or one source that is split, or files of which train is split.

    `fetch` writes `OUT/{train,dev,test}.tsv` (`.json` for task span) and `OUT/ledger.json`.
    """

    task: ComponentField
    """classify, rank, tag or span, with its options."""
    files: DatasetFilesSpec | None = None
    """Parts that exist as files."""
    split: SplitSpec | None = None
    """Parts that are cut here."""
    language: str | None = None
    """Language code, for people."""
    licence: str = "unknown"
    """Licence of the data, for people."""
    description: str | None = None
    """One sentence for people."""
    origin: str | None = None
    """Where the data come from, for people."""
    needs: str | None = None
    """What the user must supply, and in which format, where no public file can be fetched."""
    duplicates: Literal["keep", "drop"] | None = None
    """Repeated rows within a part; default: keep for files, drop where there is a split.
    drop also drops texts with conflicting labels. Counted in both cases."""
    bad_rows: Literal["fail", "skip"] = "fail"
    """What a malformed row does: stop the stage, or be counted and left out."""
    finetune: dict[str, Any] = Field(default_factory=dict)
    """What fine-tuning on this set wants, over the defaults."""

    @property
    def drops_duplicates(self) -> bool:
        """Return whether repeats are dropped, the default resolved."""
        return self.duplicates == "drop" or (self.duplicates is None and self.split is not None)

    @model_validator(mode="after")
    def _every_part_once(self) -> "DatasetSpec":
        given = [part for part in PARTS if self.files and getattr(self.files, part)]
        cut = [part for part in PARTS if self.split and part in self.split.shares]
        if self.split and not self.split.sources:
            if "train" not in given or "train" not in cut:
                raise ValueError("split: no sources; give some, or a train file to cut")
            given.remove("train")
        if sorted(given + cut) != sorted(PARTS):
            raise ValueError(
                f"parts {', '.join(given + cut) or 'none'}; files and split together must give "
                "train, dev and test once each"
            )
        return self
