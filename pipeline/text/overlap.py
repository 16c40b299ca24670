"""Which texts stand in corpora: as a line, as a field between tabs, or as a whole document.

Texts are compared letter by letter, as those of training rows are: case, width and blanks tell them
apart. What is found is thus the least that a model has seen.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pipeline.text.corpus import Block, Corpus
from pipeline.text.ledger import Ledger

# Between the sentences of a document when it is compared as one text.
_JOINTS = (b"", b" ", b"\n")


def find_texts(paths: Sequence[Path], texts: Collection[str]) -> frozenset[str]:
    """Return those of `texts` that stand in corpora of any format.

    Memory is bounded by the texts and a block of a corpus. Malformed lines are passed over.
    Raises MissingError, DataError (no text file), ConfigError (one file twice).
    """
    wanted = {text.encode() for text in texts}
    found: set[bytes] = set()
    documents = _Documents(max(map(len, wanted), default=0))
    for block in Corpus(paths, bad_rows="skip").iter_blocks(0, 1, Ledger()):
        found |= wanted.intersection(block.lines())
        if b"\t" in block.raw:
            found |= wanted.intersection(block.raw.replace(b"\n", b"\t").split(b"\t"))
        found |= wanted.intersection(documents.add(block))
    found |= wanted.intersection(documents.close())
    return frozenset(text.decode() for text in found)


class _Documents:
    """Joins the lines between blank ones; of documents over `longest` bytes nothing is kept."""

    def __init__(self, longest: int):
        self._longest = longest
        self._path: Path | None = None
        self._lines: list[bytes] = []
        self._size = 0

    def add(self, block: Block) -> Iterator[bytes]:
        """Yield the documents that end in a block."""
        if block.path != self._path:
            yield from self.close()
            self._path = block.path
        for line in block.lines():
            if not line.strip(b" \t"):
                yield from self.close()
            elif self._size <= self._longest:
                self._lines.append(line)
                self._size += len(line)

    def close(self) -> Iterator[bytes]:
        """Yield the document that ends here, its sentences joined in each way."""
        lines, size = self._lines, self._size
        self._lines, self._size = [], 0
        if len(lines) > 1 and size <= self._longest:
            yield from (joint.join(lines) for joint in _JOINTS)
