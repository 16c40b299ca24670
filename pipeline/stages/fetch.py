"""Bring a corpus, a data set or one file into data/, checked by digest, repeats and splits settled.

--spec is a section of config/corpora or config/datasets, or one source. Files are looked for in the
mirror (--mirror, PIPELINE_MIRROR, or data/mirror) before anything is downloaded. A corpus is OUT,
with its ledger beside it; a data set is the folder OUT with a file for each part and ledger.json.
"""

import argparse
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import (
    atomic_path,
    digest_file,
    make_stamp,
    scratch_folder,
    write_json,
)
from pipeline.errors import ConfigError, DataError
from pipeline.sources import DEFAULT_MIRROR, PARTS, CorpusSpec, DatasetSpec, Part, Source
from pipeline.spec import load_spec, read_spec
from pipeline.text.gathering import iter_units
from pipeline.text.ledger import Ledger
from pipeline.text.locate import Located, Places, locate
from pipeline.text.parts import Item, PartFile, choose_part, iter_items
from pipeline.text.repeats import Repeats

_FOR_PEOPLE = {"description", "language", "licence", "origin", "needs", "finetune"}
_ITEMS_AT_ONCE = 10_000
_REPEAT, _CONFLICT = "repeat", "conflicting labels"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--spec", required=True, help="a section of config/, YAML or inline JSON")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--mirror", type=Path, help="folder in which sources are looked for first")
    parser.add_argument("--datasets", type=Path, default=Path("data/datasets"))
    parser.add_argument("--out", type=Path, required=True, help="a file, or a data set's folder")


def run(args: argparse.Namespace) -> None:
    """Publish what the spec names."""
    values, _ = read_spec(args.spec)
    mirror = args.mirror or Path(os.environ.get("PIPELINE_MIRROR") or DEFAULT_MIRROR)
    with scratch_folder(args.out) as scratch:
        places = Places(mirror, args.datasets, scratch)
        if "sources" in values:
            corpus, _ = load_spec(CorpusSpec, args.spec, args.set)
            _fetch_corpus(corpus, args.out, places)
        elif {"task", "files", "split"} & set(values):
            dataset, _ = load_spec(DatasetSpec, args.spec, args.set)
            _fetch_dataset(dataset, args.out, places)
        else:
            source, _ = load_spec(Source, args.spec, args.set)
            _fetch_file(source, args.out, places)


def _stamp(spec: CorpusSpec | DatasetSpec | Source, located: Mapping[str, Located]) -> Any:
    """Return the stamp: the settings that determine the content, and the sources' digests."""
    settings = spec.model_dump(exclude=_FOR_PEOPLE, exclude_none=True)
    return make_stamp("fetch", settings, {title: file.sha256 for title, file in located.items()})


def _fetch_file(source: Source, out: Path, places: Places) -> None:
    """Publish one file as it is."""
    located = locate(source, places)
    with atomic_path(out) as temporary:
        shutil.copyfile(located.path, temporary)
        size, digest = temporary.stat().st_size, digest_file(temporary)
    record = {"stamp": _stamp(source, {source.title: located}), "bytes": size, "text": digest}
    write_json(out.with_suffix(".ledger.json"), record)


def _fetch_corpus(spec: CorpusSpec, out: Path, places: Places) -> None:
    """Publish the units of all sources, one after another, and the ledger."""
    located = _locate_all(spec.sources, places)
    repeats = Repeats(places.scratch)
    for units in _iter_units(spec, located, Ledger()):
        repeats.add(units)
    found, _ = repeats.find()
    drops = found if spec.duplicates == "drop" else found[:0]
    ledger = Ledger()
    ledger.count("repeats", len(found))
    with atomic_path(out) as temporary:
        _write_corpus(spec, located, drops, temporary, ledger)
        if not ledger.counts["documents_in"]:
            titles = ", ".join(located)
            raise DataError(f"{titles}: no documents in {ledger.counts['lines']} lines")
        ledger.check_balance(str(out))
        size, digest = temporary.stat().st_size, digest_file(temporary)
    record = {
        "stamp": _stamp(spec, located),
        "format": spec.format,
        "bytes": size,
        "text": digest,
        **{key: value for key, value in ledger.record().items() if key != "bytes"},
    }
    write_json(out.with_suffix(".ledger.json"), record)


def _locate_all(sources: list[Source], places: Places) -> dict[str, Located]:
    """Return each source's file by the source's name. Raises ConfigError for one given twice."""
    located: dict[str, Located] = {}
    for source in sources:
        file = locate(source, places)
        for title, other in located.items():
            if other.path.samefile(file.path):
                raise ConfigError(f"sources: {title} and {source.title} are one file; give it once")
        located[source.title] = file
    return located


def _iter_units(
    spec: CorpusSpec, located: Mapping[str, Located], ledger: Ledger
) -> Iterator[list[bytes]]:
    for source in spec.sources:
        yield from iter_units(spec, source, located[source.title].path, ledger)


def _write_corpus(
    spec: CorpusSpec,
    located: Mapping[str, Located],
    drops: np.ndarray,
    path: Path,
    ledger: Ledger,
) -> None:
    """Write all units but those whose numbers are in `drops` (ascending), and count them."""
    end = b"\n\n" if spec.format == "documents" else b"\n"
    first = 0
    with path.open("wb") as file:
        for units in _iter_units(spec, located, ledger):
            kept = _kept(drops, first, len(units))
            first += len(units)
            for name in ("documents_in", "documents_out"):
                ledger.count(name, int(kept.sum()))
            ledger.drop(_REPEAT, int(np.count_nonzero(~kept)))
            chosen = [unit for unit, keep in zip(units, kept.tolist(), strict=True) if keep]
            if chosen:
                file.write(end.join([*chosen, b""]))
            if spec.format == "documents":
                sentences = _count_sentences(chosen)
                ledger.count("sentences_in", sentences)
                ledger.count("sentences_out", sentences)
                ledger.drop(_REPEAT, _count_sentences(units) - sentences, unit="sentences")


def _count_sentences(documents: list[bytes]) -> int:
    return sum(document.count(b"\n") + 1 for document in documents)


def _kept(drops: np.ndarray, first: int, size: int) -> np.ndarray:
    """Return, (size,) bool, which of the items numbered from `first` on are not in `drops`."""
    begin, end = np.searchsorted(drops, [first, first + size])
    kept = np.ones(size, bool)
    kept[drops[begin:end] - first] = False
    return kept


@dataclass(frozen=True)
class _Pool:
    """Files whose rows go to some parts by their shares."""

    sources: list[Source]
    shares: Mapping[Part, float]


def _pools(spec: DatasetSpec) -> list[_Pool]:
    given: dict[Part, Source | None] = {
        part: getattr(spec.files, part) if spec.files else None for part in PARTS
    }
    pools = []
    if spec.split:
        train = [] if spec.split.sources else [given.pop("train")]
        pools.append(_Pool([*spec.split.sources, *filter(None, train)], spec.split.shares))
    whole: list[tuple[Part, Source]] = [(part, file) for part, file in given.items() if file]
    return pools + [_Pool([source], {part: 1.0}) for part, source in whole]


def _fetch_dataset(spec: DatasetSpec, out: Path, places: Places) -> None:
    """Publish the parts of a data set and its ledger; all or nothing."""
    pools = _pools(spec)
    located = _locate_all([source for pool in pools for source in pool.sources], places)
    ledger = Ledger()
    with ExitStack() as stack:
        files: dict[Part, PartFile] = {}
        paths: dict[Part, tuple[Path, Path]] = {}
        for part in PARTS:
            path = out / f"{part}{'.json' if spec.task.name == 'span' else '.tsv'}"
            temporary = stack.enter_context(atomic_path(path))
            paths[part] = path, temporary
            files[part] = PartFile(temporary, str(path), spec.task.name)
        for number, pool in enumerate(pools):
            scratch = places.scratch / f"pool_{number}"
            scratch.mkdir()
            _distribute(spec, pool, located, files, scratch, ledger)
        for file in files.values():
            file.close()
        if not files["train"].rows:
            raise DataError(f"{', '.join(located)}: no rows for train")
        ledger.check_balance(str(out))
        parts = {part: _describe(files, part, *paths[part]) for part in PARTS}
    record = {"stamp": _stamp(spec, located), "parts": parts, **ledger.record()}
    write_json(out / "ledger.json", record)


def _distribute(
    spec: DatasetSpec,
    pool: _Pool,
    located: Mapping[str, Located],
    files: Mapping[Part, PartFile],
    scratch: Path,
    ledger: Ledger,
) -> None:
    """Write the rows of a pool to the files of their parts; settle repeats and conflicts."""
    repeats = Repeats(scratch)
    for items in _batches(_iter_pool(spec, pool, located, Ledger())):
        repeats.add([item.identity for item in items], [item.label for item in items])
    repeated, conflicting = repeats.find()
    if not spec.drops_duplicates:
        ledger.count("repeats", len(repeated))
        ledger.count("conflicts", len(conflicting))
        repeated, conflicting = repeated[:0], conflicting[:0]
    ledger.drop(_REPEAT, len(repeated))
    ledger.drop(_CONFLICT, len(conflicting))
    drops = np.sort(np.concatenate([repeated, conflicting]))
    first = 0
    for items in _batches(_iter_pool(spec, pool, located, ledger)):
        kept = _kept(drops, first, len(items))
        first += len(items)
        for name in ("documents_in", "documents_out"):
            ledger.count(name, int(kept.sum()))
        for item, keep in zip(items, kept.tolist(), strict=True):
            if keep:
                files[choose_part(item.content, pool.shares)].write(item)


def _iter_pool(
    spec: DatasetSpec, pool: _Pool, located: Mapping[str, Located], ledger: Ledger
) -> Iterator[Item]:
    for source in pool.sources:
        path = located[source.title].path
        yield from iter_items(spec.task.name, source, path, spec.bad_rows, ledger)


def _batches(items: Iterator[Item]) -> Iterator[list[Item]]:
    while some := list(islice(items, _ITEMS_AT_ONCE)):
        yield some


def _describe(
    files: Mapping[Part, PartFile], part: Part, path: Path, temporary: Path
) -> dict[str, Any]:
    """Return what the ledger says of a part."""
    file = files[part]
    record: dict[str, Any] = {
        "file": path.name,
        "rows": file.rows,
        "bytes": temporary.stat().st_size,
        "digest": digest_file(temporary),
        # Under which a corpus that is made of this part names it.
        "sha256": digest_file(temporary, "sha256"),
        "labels": dict(sorted(file.labels.items())),
    }
    if part != "train":
        record["also_in_train"] = file.count_shared(files["train"])
    return record
