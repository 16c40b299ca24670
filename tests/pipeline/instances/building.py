"""Building rows of one block in memory, for the tests of instance kinds."""

from pathlib import Path

from pipeline.instances import BuildSettings, Table
from pipeline.registry import INSTANCES
from pipeline.text.corpus import Corpus
from pipeline.text.ledger import Ledger
from pipeline.text.tokenizers import build_tokenizer
from pipeline.text.vocabulary import SPECIAL_TOKENS, build_vocabulary

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = build_vocabulary([*SPECIAL_TOKENS, *LETTERS])


def build(folder: Path, content: str, name: str, seq_length: int = 8, seed: int = 7, **options):
    """Return (tables, ledger, kind) of a corpus of letters between spaces, an id each."""
    path = folder / "corpus.txt"
    path.write_bytes(content.encode())
    more = {"skip_bad_rows": options.pop("skip", False), "held_out": options.pop("held_out", 0.0)}
    kind, config = INSTANCES.configure({"name": name, **options}, "instances")
    corpus = Corpus([path], documents=kind.documents)
    tokenizer = build_tokenizer("space", VOCABULARY)
    builder = kind(config, BuildSettings(tokenizer, seq_length, seed, corpus, **more))
    ledger = Ledger()
    blocks = corpus.iter_blocks(0, 1, Ledger(), builder.block_bytes)
    tables = [builder.build(block, ledger) for block in blocks]
    return tables, ledger, builder


def texts(table: Table, column: str = "token_ids") -> list[str]:
    """Return the rows of a column as tokens between spaces."""
    lists = table.columns[column]
    bounds = zip(lists.offsets[:-1], lists.offsets[1:], strict=True)
    rows = (lists.values[begin:end].tolist() for begin, end in bounds)
    return [" ".join(VOCABULARY.tokens[index] for index in row) for row in rows]
