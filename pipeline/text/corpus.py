r"""Corpora: text files, read in blocks of whole lines or documents from any byte range.

A unit is a line, or in the format `documents` a group of lines between blank lines. A unit belongs
to the byte range in which it begins, so ranges cut a corpus without loss or overlap. Lines end at
\n, \r\n or \r and at nothing else; a byte order mark is dropped.
"""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import xxhash

from pipeline.artifacts import READ_BYTES
from pipeline.errors import ArtifactError, ConfigError, DataError, MissingError, from_os_error
from pipeline.text.encoding import not_utf8, refuse_magic
from pipeline.text.ledger import Ledger

MAX_LINE_BYTES = 1 << 20
MAX_DOCUMENT_BYTES = 16 << 20
BLOCK_BYTES = 1 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_LINE_END = re.compile(rb"\r\n|\n|\r")
# A blank line: blanks from the start of a line to its end. The \n of a \r\n starts no line.
_BLANK_LINE = re.compile(rb"(?:(?<=\n)|(?<=\r)(?!\n))[ \t]*(?:\r\n|\n|\r)")
_BLANKS = re.compile(rb"^[ \t]+$", re.MULTILINE)
_WHOLE_LINES = re.compile(rb"[^\r\n]*(?:\r\n|\n|\r|$)")


@dataclass(frozen=True)
class Block:
    r"""Whole units of a corpus. raw: their bytes, each line ends in \n. text: the same, decoded.

    offset: where the block begins in the file, for messages.
    """

    raw: bytes
    text: str
    path: Path
    offset: int

    @classmethod
    def decode(cls, raw: bytes, path: Path, offset: int) -> "Block":
        """Return the block of UTF-8 bytes."""
        return cls(raw, raw.decode("utf-8"), path, offset)

    def lines(self) -> list[bytes]:
        """Return the bytes of each line."""
        return self.raw.split(b"\n")[:-1]

    def place(self, line: int) -> str:
        """Return `file:number` of a line of this block (from 0)."""
        return f"{self.path}:{line_number(self.path, self.offset) + line}"


@dataclass(frozen=True)
class _File:
    path: Path
    size: int
    identity: tuple[int, int, int]


class Corpus:
    """Text files taken one after another, checked before the first byte is read.

    documents: units are documents rather than lines. bad_rows: `fail` raises at the first malformed
    line; `skip` drops and counts it, and cuts what is over the length limits into pieces.
    """

    def __init__(self, paths: Sequence[Path], documents: bool = False, bad_rows: str = "fail"):
        self._files = [_check_file(path) for path in paths]
        self._documents = documents
        self._skip = bad_rows == "skip"
        seen: dict[tuple[int, int, int], Path] = {}
        for file in self._files:
            if first := seen.get(file.identity):
                raise ConfigError(f"--corpus: {first} and {file.path} are one file; give it once")
            seen[file.identity] = file.path
        self.sizes = [file.size for file in self._files]

    def digest(self) -> str:
        """Return the xxh3-128 of the text, whatever its line ends were."""
        state = xxhash.xxh3_128()
        for block in self.iter_blocks(0, 1, Ledger()):
            state.update(block.raw)
        return state.hexdigest()

    def iter_blocks(
        self, part: int, parts: int, ledger: Ledger, block_bytes: int = BLOCK_BYTES
    ) -> Iterator[Block]:
        """Yield the units that begin in the part-th of `parts` equal byte ranges, in order.

        Counts lines, bytes, characters and what is dropped or cut in `ledger`.
        Raises DataError (malformed text, policy fail), ArtifactError (a file changed meanwhile).
        """
        total = sum(self.sizes)
        begin, end = part * total // parts, (part + 1) * total // parts
        for file in self._files:
            if begin < file.size and end > 0:
                yield from self._iter_file(file, max(begin, 0), end, ledger, block_bytes)
            begin, end = begin - file.size, end - file.size

    def _iter_file(
        self, file: _File, begin: int, end: int, ledger: Ledger, block_bytes: int
    ) -> Iterator[Block]:
        find = _document_start if self._documents else _line_start
        try:
            with file.path.open("rb") as stream:
                first, last = (find(stream, place, file.size) for place in (begin, end))
                reader = _Reader(stream, file.path, self._documents, self._skip, ledger)
                if self._documents:
                    yield from reader.iter_documents(first, last, block_bytes)
                else:
                    yield from reader.iter_lines(first, last)
        except OSError as error:
            raise from_os_error(error, file.path) from None
        if _check_file(file.path) != file:
            size = file.path.stat().st_size
            raise ArtifactError(
                f"{file.path}: changed while it was read, {file.size} bytes before, {size} now"
            )


def _check_file(path: Path) -> _File:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: not a regular file")
        with path.open("rb") as stream:
            refuse_magic(stream.read(8), str(path))
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file (--corpus)") from None
    except OSError as error:
        raise from_os_error(error, path) from None
    return _File(path, status.st_size, (status.st_dev, status.st_ino, status.st_mtime_ns))


def line_number(path: Path, offset: int) -> int:
    """Return the number, from 1, of the line that begins at `offset` of a file."""
    number, last = 1, b""
    with path.open("rb") as file:
        while offset > 0 and (block := file.read(min(READ_BYTES, offset))):
            offset -= len(block)
            number += len(_LINE_END.findall(block)) - (last == b"\r" and block[:1] == b"\n")
            last = block[-1:]
    return number


def _line_start(file: BinaryIO, position: int, size: int) -> int:
    """Return where the first line begins at or behind `position`."""
    if not 0 < position < size:
        return min(position, size)
    return _search(file, position - 1, b"x", _LINE_END, size)


def _document_start(file: BinaryIO, position: int, size: int) -> int:
    """Return the first end of a blank line at or behind `position`."""
    if not 0 < position < size:
        return min(position, size)
    start = max(position - 2, 0)
    file.seek(start)
    if file.read(position - start) != b"\r\n":
        start = position - 1
    before = b"\n" if _only_blanks_before(file, start) else b"x"
    return _search(file, start, before, _BLANK_LINE, size)


def _only_blanks_before(file: BinaryIO, position: int) -> bool:
    """Return whether the line's part before `position` is empty or blank."""
    while position > 0:
        begin = max(0, position - 4096)
        file.seek(begin)
        solid = file.read(position - begin).rstrip(b" \t")
        if solid:
            return solid[-1:] in b"\r\n"
        position = begin
    return True


def _search(
    file: BinaryIO, start: int, before: bytes, pattern: re.Pattern[bytes], size: int
) -> int:
    """Return where the first match of `pattern` at or behind `start` ends, else `size`.

    before: one byte that stands for what is before `start`. Memory is bounded by a run of blanks.
    """
    file.seek(start)
    window, origin = before, start - 1
    while block := file.read(1 << 16):
        window += block
        match = pattern.search(window, 1)
        if match and (match.end() < len(window) or not window.endswith(b"\r")):
            return origin + match.end()
        kept = max(window.rfind(b"\n", 0, -1), window.rfind(b"\r", 0, -1), 0)
        if window[kept + 1 :].strip(b" \t\r\n"):
            kept = len(window) - 2  # a line that is not blank: only its end matters
        window, origin = window[kept:], origin + kept
    return size


class _Reader:
    """Reads one file; malformed lines follow the policy."""

    def __init__(self, file: BinaryIO, path: Path, documents: bool, skip: bool, ledger: Ledger):
        self._file = file
        self._path = path
        self._documents = documents
        self._skip = skip
        self._ledger = ledger

    def iter_lines(self, begin: int, end: int) -> Iterator[Block]:
        """Yield blocks of whole lines between two line starts."""
        self._file.seek(begin)
        rest, offset, final = b"", begin, begin >= end
        while rest or not final:
            chunk = self._file.read(min(BLOCK_BYTES, end - begin))
            begin += len(chunk)
            final = not chunk or begin >= end
            raw = rest + chunk
            cut = self._whole_lines(raw, offset, final)
            if cut:
                yield self._block(raw[:cut], offset)
            rest, offset = raw[cut:], offset + cut

    def iter_documents(self, begin: int, end: int, block_bytes: int) -> Iterator[Block]:
        """Yield blocks of whole documents between two document starts."""
        raw, offset = b"", begin
        for lines in self.iter_lines(begin, end):
            offset = offset if raw else lines.offset
            raw += lines.raw
            cut = raw.rfind(b"\n\n") + 2 if len(raw) >= block_bytes else 1
            if cut == 1 and len(raw) >= max(block_bytes, MAX_DOCUMENT_BYTES):
                cut = self._cut_document(raw, offset)
            if cut > 1:
                yield Block.decode(raw[:cut], self._path, offset)
                raw, offset = raw[cut:], offset + cut
        if raw:
            yield Block.decode(raw, self._path, offset)

    def _cut_document(self, raw: bytes, offset: int) -> int:
        if not self._skip:
            raise DataError(
                f"{self._path}:{line_number(self._path, offset)}: a document of over "
                f"{MAX_DOCUMENT_BYTES} bytes; put blank lines between documents, or let "
                "bad_rows: skip cut it"
            )
        self._ledger.count("cut_documents")
        return len(raw)

    def _whole_lines(self, raw: bytes, offset: int, final: bool) -> int:
        """Return how many bytes of `raw` are whole lines; of an over-long line, the next piece."""
        end = raw.find(b"\n")
        first = len(raw) if end < 0 else end
        if first > MAX_LINE_BYTES and (end := raw.find(b"\r", 0, first - 1)) >= 0:
            first = end
        if first > MAX_LINE_BYTES:
            return self._cut_line(raw, offset)
        if final:
            return len(raw)
        return max(raw.rfind(b"\n"), raw.rfind(b"\r", 0, -1)) + 1

    def _cut_line(self, raw: bytes, offset: int) -> int:
        if not self._skip:
            size = os.fstat(self._file.fileno()).st_size
            length = _search(self._file, offset, b"x", _LINE_END, size) - offset
            raise DataError(
                f"{self._path}:{line_number(self._path, offset)}: a line of {length} bytes; at "
                f"most {MAX_LINE_BYTES}, break it up, or let bad_rows: skip cut it"
            )
        self._ledger.count("cut_lines")
        cut = MAX_LINE_BYTES
        while raw[cut] & 0xC0 == 0x80 and cut > MAX_LINE_BYTES - 4:  # inside a character
            cut -= 1
        return cut

    def _block(self, raw: bytes, offset: int) -> Block:
        if offset == 0 and raw.startswith(BYTE_ORDER_MARK):
            self._ledger.count("byte_order_marks")
            raw, offset = raw.removeprefix(BYTE_ORDER_MARK), len(BYTE_ORDER_MARK)
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raw = b"".join(self._good_lines(raw, offset))
        plain = self._plain(raw)
        if plain is not raw or "\0" in text:
            text = plain.decode("utf-8")
        self._ledger.count("lines", plain.count(b"\n"))
        self._ledger.count("bytes", len(plain))
        self._ledger.count("characters", len(text))
        return Block(plain, text, self._path, offset)

    def _good_lines(self, raw: bytes, offset: int) -> Iterator[bytes]:
        """Yield the lines that are text; others are dropped, or raise under policy fail."""
        for line in _WHOLE_LINES.findall(raw):
            try:
                line.decode("utf-8")
                problem = "NUL byte" if b"\0" in line else ""
                message = "a NUL byte; is this a text file?"
            except UnicodeDecodeError as error:
                problem = "not UTF-8"
                message = not_utf8(line, error, offset)
            if not problem:
                yield line
            elif self._skip:
                self._ledger.drop(problem, unit="sentences" if self._documents else "documents")
            else:
                raise DataError(f"{self._path}:{line_number(self._path, offset)}: {message}")
            offset += len(line)

    def _plain(self, raw: bytes) -> bytes:
        r"""Return lines that end in \n; in documents, blank lines are empty."""
        if b"\r" in raw:
            raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if raw and not raw.endswith(b"\n"):
            raw += b"\n"
        if self._documents and (b" \n" in raw or b"\t\n" in raw):
            raw = _BLANKS.sub(b"", raw)
        return raw
