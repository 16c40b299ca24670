"""Build a vocabulary from corpora, or check a published one and copy it (--import).

Writes OUT (one token a line) and, beside it with the suffix .json, its digest, coverage and ledger.
The bytes are the same for any number of processes. With --import and --corpus the coverage of the
published file is measured.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.artifacts import make_stamp, scratch_folder, write_json, write_text
from pipeline.errors import ConfigError, DataError, UsageError
from pipeline.spec import VocabSpec, load_spec
from pipeline.text.corpus import BYTE_ORDER_MARK, Corpus
from pipeline.text.counting import CountingJob, count_tokens, read_counts
from pipeline.text.coverage import count_ids, describe_coverage
from pipeline.text.ledger import Ledger, read_fetched
from pipeline.text.tokenizers import build_tokenizer
from pipeline.text.vocabulary import (
    SPECIAL_TOKENS,
    Vocabulary,
    build_vocabulary,
    choose_tokens,
    read_vocabulary,
)

_BYTES_PER_PART = 16 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--spec", default="", help="settings: a YAML file or inline JSON")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--corpus", type=Path, nargs="+", default=[], help="text files")
    parser.add_argument("--import", type=Path, dest="published", help="check and copy this file")
    parser.add_argument("--out", type=Path, required=True, help="the vocabulary, e.g. vocab.txt")


def run(args: argparse.Namespace) -> None:
    """Publish the vocabulary and its record."""
    spec, options = load_spec(VocabSpec, args.spec, args.set)
    if args.out.suffix == ".json":
        raise UsageError(f"--out {args.out}: its record takes the suffix .json; use .txt")
    if not args.corpus and not args.published:
        raise UsageError("give --corpus to build a vocabulary, or --import for a published one")
    corpus = Corpus(args.corpus, bad_rows=spec.bad_rows)
    parts = max(options.processes, -(-sum(corpus.sizes) // _BYTES_PER_PART))
    if args.published:
        vocabulary, ledger = read_vocabulary(args.published), None
        _note_mark(args.published)
    else:
        vocabulary, ledger = _build(spec, args, corpus, parts, options.processes)
    inputs = {"published": vocabulary.digest} if args.published else {}
    record: dict[str, Any] = {
        "vocabulary": vocabulary.digest,
        "asked": spec.size,
        "size": len(vocabulary.tokens),
    }
    if args.corpus:
        inputs["corpora"] = corpus.digest()
        name = "char" if spec.characters else spec.tokenizer
        tokenizer = build_tokenizer(name, vocabulary, spec.lowercase)
        counts = count_ids(corpus, tokenizer, parts, options.processes)
        record |= describe_coverage(counts, corpus, tokenizer)
        record["corpora"] = read_fetched(args.corpus)
    if ledger:
        record["ledger"] = ledger.record()
    packages = ["tokenizers", *(["jieba"] if spec.tokenizer == "word" else [])]
    record["stamp"] = make_stamp("vocab", spec.model_dump(), inputs, *packages)
    write_text(args.out, "\n".join([*vocabulary.tokens, ""]))
    write_json(args.out.with_suffix(".json"), record)
    _tell(args.out, vocabulary, record)


def _build(
    spec: VocabSpec, args: argparse.Namespace, corpus: Corpus, parts: int, processes: int
) -> tuple[Vocabulary, Ledger]:
    if spec.size is not None and spec.size <= len(SPECIAL_TOKENS):
        raise ConfigError(
            f"--spec: size {spec.size} leaves no room beside {len(SPECIAL_TOKENS)} special tokens"
        )
    fetched = read_fetched(args.corpus)
    labelled = {ledger["name"] for ledger in fetched if ledger["format"] == "labelled"}
    with scratch_folder(args.out) as scratch:
        job = CountingJob(
            corpus,
            frozenset(path for path in args.corpus if path.stem in labelled),
            spec.tokenizer,
            spec.lowercase,
            scratch,
            parts,
        )
        counts, ledger = count_tokens(job, processes)
        if not ledger.counts["documents_in"]:
            where = ", ".join(map(str, args.corpus))
            raise DataError(f"{where}: no documents in {ledger.counts['lines']} lines")
        ledger.check_balance(str(args.out))
        tokens = choose_tokens(
            partial(read_counts, counts),
            pieces=spec.tokenizer == "bert",
            characters=spec.characters,
            size=spec.size,
            min_count=spec.min_count,
        )
    return build_vocabulary(tokens, str(args.out)), ledger


def _note_mark(published: Path) -> None:
    with published.open("rb") as file:
        if file.read(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK:
            print(f"note: {published}: byte order mark dropped", file=sys.stderr)


def _tell(out: Path, vocabulary: Vocabulary, record: dict[str, Any]) -> None:
    """Say on stderr what the vocabulary is like."""
    if pad := vocabulary.token_ids.pad:
        print(f"note: {out}: [PAD] has id {pad}, not 0", file=sys.stderr)
    if record["asked"] and record["size"] < record["asked"]:
        asked, got = record["asked"], record["size"]
        print(f"warning: {out}: {asked} tokens asked, {got} there are", file=sys.stderr)
    if "coverage" in record:
        covered, tokens = record["coverage"], record["tokens"]
        print(
            f"vocab: {record['size']} tokens cover {covered:.2%} of {tokens} in the text",
            file=sys.stderr,
        )
