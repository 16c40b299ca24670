"""Turn corpora into memory-mapped shards of ids, and a manifest with the conservation ledger.

With --shards only those shards are built, with --join only the manifest; with neither, both. The
bytes are the same for any number of jobs and processes. Run again, shards that are whole and fit
are kept.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from pipeline.artifacts import (
    atomic_path,
    digest_file,
    first_difference,
    make_stamp,
    read_json_artifact,
    remove_leftovers,
    write_json,
)
from pipeline.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    PipelineError,
    UsageError,
    printable,
)
from pipeline.instances import BuildSettings, Table
from pipeline.registry import INSTANCES
from pipeline.spec import InstancesSpec, load_spec
from pipeline.text.codepoints import code_points, count_invisible
from pipeline.text.corpus import Block, Corpus
from pipeline.text.coverage import top_unknown
from pipeline.text.ledger import Ledger, read_fetched
from pipeline.text.manifest import MANIFEST, ShardEntry, ShardFile, check_files, shard_name
from pipeline.text.rows import Ragged
from pipeline.text.shards import ShardWriter, arrow_schema
from pipeline.text.tokenizers import build_tokenizer
from pipeline.text.vocabulary import SPECIAL_TOKENS, Vocabulary, read_vocabulary
from pipeline.text.workers import iter_parallel

_QUIET_SECONDS = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--spec", required=True, help="settings: a YAML file or inline JSON")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--corpus", type=Path, nargs="+", required=True, help="text files")
    parser.add_argument("--vocab", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the instance set")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--shards", help="build these alone, e.g. 0,4,8")
    which.add_argument("--join", action="store_true", help="write the manifest of built shards")


def run(args: argparse.Namespace) -> None:
    """Build shards, the manifest, or both."""
    spec, options = load_spec(InstancesSpec, args.spec, args.set)
    wanted = _shard_numbers(args.shards, spec.shards)
    build = _prepare(spec, args)
    if args.join:
        _join(build, check=True)
        return
    with _nothing_left_behind(build, wanted):
        _build_shards(build, wanted, options.processes)
        if not args.shards:
            _join(build, check=False)


def _shard_numbers(text: str | None, shards: int) -> list[int]:
    if text is None:
        return list(range(shards))
    numbers = text.split(",")
    if not all(number.isdecimal() and int(number) < shards for number in numbers):
        raise UsageError(f"--shards {text}: expected numbers in 0..{shards - 1} joined by commas")
    return sorted({int(number) for number in numbers})


@dataclass(frozen=True)
class _Build:
    """All that a worker needs."""

    spec: InstancesSpec
    corpora: list[Path]
    corpus: Corpus
    vocabulary: Vocabulary
    kind: Any
    out: Path

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings that determine the content."""
        fields = self.spec.model_dump(exclude={"max_unknown", *self.spec.options()})
        return {**fields, **self.kind.config.model_dump()}

    def stamp(self, **inputs: str) -> dict[str, Any]:
        """Return the stamp of a file made from the vocabulary and `inputs`."""
        packages = ["tokenizers", "pyarrow", *(["jieba"] if self.spec.tokenizer == "word" else [])]
        inputs["vocabulary"] = self.vocabulary.digest
        return make_stamp("instances", self.settings, inputs, *packages)

    def record_path(self, shard: int) -> Path:
        """Return where a shard's record stands; it is written last."""
        return (self.out / shard_name(shard)).with_suffix(".json")

    def files(self, shard: int) -> list[Path]:
        """Return the three files of a shard."""
        names = [shard_name(shard), shard_name(shard, held_out=True)]
        return [self.record_path(shard), *(self.out / name for name in names)]


def _prepare(spec: InstancesSpec, args: argparse.Namespace) -> _Build:
    kind, config = INSTANCES.configure({"name": spec.kind, **spec.options()}, "instances")
    vocabulary = read_vocabulary(args.vocab)
    _check_sidecar(args.vocab, vocabulary, spec)
    for ledger in read_fetched(args.corpus):
        if ledger["format"] not in kind.formats:
            raise ConfigError(
                f"corpus {ledger['name']} has format {ledger['format']}; instances of kind "
                f"{spec.kind} read {' or '.join(kind.formats)}"
            )
    tokenizer = build_tokenizer(spec.tokenizer, vocabulary, spec.lowercase)
    corpus = Corpus(args.corpus, documents=kind.documents, bad_rows=spec.bad_rows)
    settings = BuildSettings(
        tokenizer,
        spec.seq_length,
        spec.seed,
        corpus,
        held_out=spec.held_out,
        skip_bad_rows=spec.bad_rows == "skip",
    )
    builder = kind(config, settings)
    return _Build(spec, args.corpus, corpus, vocabulary, builder, args.out)


def _check_sidecar(path: Path, vocabulary: Vocabulary, spec: InstancesSpec) -> None:
    """Raise if the stage vocab recorded other tokens, or another way of cutting text."""
    if not (sidecar := path.with_suffix(".json")).exists():
        return
    record = read_json_artifact(sidecar, "vocab")
    if record["vocabulary"] != vocabulary.digest:
        raise ArtifactError(
            f"{path}: tokens have digest {vocabulary.digest[:12]}..., {sidecar.name} says "
            f"{record['vocabulary'][:12]}...; edited or damaged, build it again"
        )
    for key in ("tokenizer", "lowercase"):
        theirs, ours = record["stamp"]["settings"][key], getattr(spec, key)
        if theirs != ours:
            raise ConfigError(f"{path}: made with {key} {theirs}, the instances ask for {ours}")


@contextmanager
def _nothing_left_behind(build: _Build, shards: list[int]) -> Iterator[None]:
    """Remove what this run made if it fails; shards of earlier runs that fit stay."""
    fresh = not build.out.exists()
    before = {shard for shard in shards if build.record_path(shard).exists()}
    try:
        yield
    except BaseException:
        for path in [path for shard in set(shards) - before for path in build.files(shard)]:
            if build.out.exists():
                remove_leftovers(path)
                path.unlink(missing_ok=True)
        if fresh:
            with suppress(OSError):
                build.out.rmdir()
        raise


def _build_shards(build: _Build, shards: list[int], processes: int) -> None:
    """Build shards and say how far it is, unless it is quickly done."""
    began, beat = time.monotonic(), None
    for done, _ in enumerate(iter_parallel(partial(_build_shard, build), shards, processes), 1):
        if beat is None and (sys.stderr.isatty() or time.monotonic() - began > _QUIET_SECONDS):
            from pipeline.stages.progress import Heartbeat  # loads more than a short run does

            beat = Heartbeat("instances", len(shards))
        if beat:
            beat.step(done, {})


def _build_shard(build: _Build, shard: int) -> None:
    """Publish the two files of a shard and, last, its record; a shard that fits is kept."""
    if _is_built(build, shard):
        return
    stamp = build.stamp(shard=f"{shard} of {build.spec.shards}")
    schema = arrow_schema(build.kind.columns, len(build.vocabulary.tokens), stamp)
    ledger, text = Ledger(), xxhash.xxh3_128()
    record_path, train_path, held_out_path = build.files(shard)
    with atomic_path(train_path) as train_file, atomic_path(held_out_path) as held_out_file:
        train, held_out = ShardWriter(train_file, schema), ShardWriter(held_out_file, schema)
        for block in build.corpus.iter_blocks(
            shard, build.spec.shards, ledger, build.kind.block_bytes
        ):
            text.update(block.raw)
            _count_oddities(block, ledger)
            table = build.kind.build(block, ledger)
            _append(build, table, train, held_out, ledger)
        ledger.check_balance(f"{build.out}: shard {shard}")
        parts = {"": (train_path, train, train_file)}
        parts["held_out_"] = (held_out_path, held_out, held_out_file)
        entry = _describe(parts)
    record = {
        "stamp": build.stamp(shard=f"{shard} of {build.spec.shards}", text=text.hexdigest()),
        "corpus_bytes": build.corpus.sizes,
        "files": entry,
        "ledger": ledger.record(),
    }
    write_json(record_path, record)


def _describe(parts: dict[str, tuple[Path, ShardWriter, Path]]) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    for prefix, (path, writer, temporary) in parts.items():
        writer.close()
        file = ShardFile(
            file=path.name,
            rows=writer.rows,
            tokens=writer.tokens,
            bytes=temporary.stat().st_size,
            digest=digest_file(temporary),
        )
        entry.update({prefix + key: value for key, value in file.model_dump().items()})
    return entry


def _append(
    build: _Build, table: Table, train: ShardWriter, held_out: ShardWriter, ledger: Ledger
) -> None:
    """Send each row to its file and count rows, tokens and documents."""
    for column in table.columns.values():
        if isinstance(column, Ragged):
            ledger.count("tokens", len(column.values))
            unknown = column.values == build.vocabulary.token_ids.unk
            ledger.count("unknown", int(np.count_nonzero(unknown)))
    out = np.zeros(len(table.documents), bool)
    if build.spec.held_out:
        out = table.held_out(build.spec.held_out)
    ledger.count("rows", len(out))
    for name, rows in (("documents_out", ~out), ("held_out", out)):
        ledger.count(name, int(np.count_nonzero(np.bincount(table.documents[rows]))))
    if not out.any():
        train.append(table.columns)
        return
    train.append(table.take(np.flatnonzero(~out)))
    held_out.append(table.take(np.flatnonzero(out)))


def _count_oddities(block: Block, ledger: Ledger) -> None:
    """Count written-out special tokens (plain text here) and invisible characters."""
    written = sum(map(block.text.count, SPECIAL_TOKENS)) if "[" in block.text else 0
    ledger.count("special_token_texts", written)
    codes = code_points(block.text)
    ledger.count("invisible_characters", count_invisible(codes))


def _is_built(build: _Build, shard: int) -> bool:
    """Return whether a whole shard of these settings and this text is there."""
    if not build.record_path(shard).exists():
        return False
    try:
        record = read_json_artifact(build.record_path(shard), "instances")
        entry = ShardEntry(**record["files"])
        check_files(build.out, [entry.part(held_out) for held_out in (False, True)])
    except (PipelineError, KeyError, ValueError):
        return False
    text = xxhash.xxh3_128()
    for block in build.corpus.iter_blocks(shard, build.spec.shards, Ledger()):
        text.update(block.raw)
    stamp = build.stamp(shard=f"{shard} of {build.spec.shards}", text=text.hexdigest())
    return record["stamp"] == stamp and record["corpus_bytes"] == build.corpus.sizes


def _join(build: _Build, check: bool) -> None:
    """Publish the manifest. check: read every shard again and compare digests."""
    records = [_read_record(build, shard) for shard in range(build.spec.shards)]
    entries = [ShardEntry(**record["files"]) for record in records]
    if check:
        for held_out in (False, True):
            check_files(build.out, [entry.part(held_out) for entry in entries])
    ledger = Ledger()
    for record in records:
        ledger.add(Ledger(record["ledger"]))
    ledger.check_balance(str(build.out))
    _check_usable(build, ledger)
    if marks := ledger.counts["byte_order_marks"]:
        print(f"note: {marks} byte order mark dropped", file=sys.stderr)
    texts = [record["stamp"]["inputs"]["text"] for record in records]
    totals = {
        total: sum(getattr(entry, total) for entry in entries)
        for total in ("rows", "tokens", "held_out_rows", "held_out_tokens")
    }
    manifest = {
        "stamp": build.stamp(text=xxhash.xxh3_128("".join(texts).encode()).hexdigest()),
        "kind": build.spec.kind,
        "vocabulary": build.vocabulary.digest,
        "vocab_size": len(build.vocabulary.tokens),
        "tokenizer": build.spec.tokenizer,
        "lowercase": build.spec.lowercase,
        "seq_length": build.spec.seq_length,
        "columns": build.kind.columns,
        "shards": [entry.model_dump() for entry in entries],
        **totals,
        "ledger": ledger.record(),
        "corpora": read_fetched(build.corpora),
    }
    write_json(build.out / MANIFEST, manifest)


def _read_record(build: _Build, shard: int) -> dict[str, Any]:
    path = build.record_path(shard)
    record = read_json_artifact(path, "instances")
    expected = build.stamp(shard=f"{shard} of {build.spec.shards}")
    expected["inputs"]["text"] = record["stamp"]["inputs"].get("text")
    expected["corpus_bytes"] = build.corpus.sizes
    found = {**record["stamp"], "corpus_bytes": record["corpus_bytes"]}
    if different := first_difference(expected, found):
        raise ConfigError(f"{path}: made for something else: {different}; build this shard again")
    return record


def _check_usable(build: _Build, ledger: Ledger) -> None:
    """Raise DataError for a set that nothing could be trained on."""
    counts = ledger.counts
    where = ", ".join(map(str, build.corpora))
    if not counts["documents_in"]:
        raise DataError(f"{where}: no documents in {counts['lines']} lines")
    if not counts["documents_out"]:
        reasons = {**ledger.dropped["documents"], "held out": counts["held_out"]}
        shown = ", ".join(f"{reason}: {number}" for reason, number in sorted(reasons.items()))
        raise DataError(f"{where}: none of {counts['documents_in']} documents is left ({shown})")
    if problem := build.kind.problem(ledger):
        raise DataError(f"{where}: {problem}")
    share = counts["unknown"] / max(1, counts["tokens"])
    if share > build.spec.max_unknown:
        top = top_unknown(build.corpus, build.kind.settings.tokenizer)
        shown = ", ".join(f"'{printable(char)}' U+{ord(char):04X} ({n})" for char, n in top)
        raise DataError(
            f"{where}: {share:.1%} of the tokens are unknown to the vocabulary, at most "
            f"{build.spec.max_unknown:.1%} (max_unknown); most often {shown}"
        )
