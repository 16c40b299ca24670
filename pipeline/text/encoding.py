"""What bytes are that were given for UTF-8 text: messages about other kinds of files."""

from pipeline.errors import DataError

# Of files that people mistake for text; the longer marks first.
MAGIC = {
    b"\xff\xfe\x00\x00": "UTF-32 text",
    b"\x00\x00\xfe\xff": "UTF-32 text",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"ARROW1": "an Arrow file",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF document",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
}


def refuse_magic(start: bytes, where: str) -> None:
    """Raise DataError if a file that starts so is of a known kind other than UTF-8 text."""
    for mark, kind in MAGIC.items():
        if start.startswith(mark):
            hint = "save it as UTF-8" if kind.endswith("text") else "give the text itself"
            raise DataError(f"{where}: this is {kind}, found bytes {start[:4]!r}; {hint}")


def not_utf8(line: bytes, error: UnicodeDecodeError, offset: int) -> str:
    """Return what is wrong with a line that is not UTF-8; `offset`: where it begins in the file."""
    found = line[error.start : error.start + 4]
    return (
        f"not UTF-8 at byte {offset + error.start}, found {found!r} ({error.reason}); "
        f"{_guess(line)}, save it as UTF-8"
    )


def _guess(line: bytes) -> str:
    for encoding in ("gb18030", "big5", "windows-1252"):
        try:
            line.rstrip(b"\r\n").decode(encoding)
        except UnicodeDecodeError:
            continue
        return f"perhaps {encoding}"
    return "an unknown encoding"
