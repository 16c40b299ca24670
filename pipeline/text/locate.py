"""Where a source's file is on this machine, its digest checked; downloads what is not here."""

import importlib.metadata
import importlib.util
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.artifacts import READ_BYTES, digest_file, read_json_artifact
from pipeline.errors import (
    ArtifactError,
    DataError,
    MissingError,
    UnsafeError,
    from_os_error,
    printable,
)
from pipeline.sources import Source

_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Places:
    """Where files are looked for. scratch: a folder for what is downloaded."""

    mirror: Path
    datasets: Path
    scratch: Path


@dataclass(frozen=True)
class Located:
    """A source's file, with the digest that was checked or found."""

    path: Path
    sha256: str


def locate(source: Source, places: Places) -> Located:
    """Return a source's file.

    Raises MissingError (and says where to put the file by hand), ArtifactError for another digest,
    UnsafeError for paths that leave their root.
    """
    if source.dataset:
        return _dataset_part(source, places.datasets)
    if source.package:
        path = _package_file(source.package, source.file or "")
    else:
        path = _local_file(source, places.mirror) or _download(source, places)
    found = digest_file(path, "sha256")
    if source.sha256 and found != source.sha256:
        raise ArtifactError(
            f"{path}: SHA-256 {found}, expected {source.sha256} for {printable(source.title)}"
        )
    return Located(path, found)


def inside(root: Path, name: str) -> Path:
    """Return `root`/`name`. Raises UnsafeError if that is not below `root`, links followed."""
    relative = PurePosixPath(name)
    path = root / name
    if relative.is_absolute() or ".." in relative.parts or name.startswith("~") or "\0" in name:
        raise UnsafeError(f"path '{printable(name)}' is not relative to {root}")
    if not path.resolve().is_relative_to(root.resolve()):
        raise UnsafeError(f"path '{printable(name)}' leads to {path.resolve()}, outside {root}")
    return path


def _dataset_part(source: Source, datasets: Path) -> Located:
    folder = datasets / str(source.dataset)
    if not (folder / "ledger.json").exists():
        raise MissingError(f"{folder}: data set {source.dataset} is not there; fetch it first")
    record = read_json_artifact(folder / "ledger.json", "fetch")["parts"][str(source.part)]
    path = folder / record["file"]
    if (found := digest_file(path)) != record["digest"]:
        raise ArtifactError(
            f"{path}: digest {found[:12]}..., its ledger says {record['digest'][:12]}...; fetch "
            "the data set again"
        )
    return Located(path, digest_file(path, "sha256"))


def _package_file(package: str, file: str) -> Path:
    roots = list(_package_roots(package))
    if not roots:
        raise MissingError(f"package {package} is not installed; `pip install {package}`")
    for root in roots:
        if (path := inside(root, file)).is_file():
            return path
    raise MissingError(f"package {package} holds no file {printable(file)} (in {roots[0]})")


def _package_roots(package: str) -> list[Path]:
    """Return the folders of an installed package, found by its names without importing it."""
    names = {package, package.replace("-", "_")}
    try:
        files = importlib.metadata.files(package) or []
        names |= {file.parts[0] for file in files if file.suffix == ".py" and len(file.parts) > 1}
    except importlib.metadata.PackageNotFoundError:
        pass
    roots: list[Path] = []
    for name in sorted(name for name in names if "." not in name):  # a dot would import a parent
        spec = importlib.util.find_spec(name)
        roots += map(Path, (spec.submodule_search_locations or []) if spec else [])
    return roots


def _local_file(source: Source, mirror: Path) -> Path | None:
    """Return the file of a path or url in the mirror or here, if it is there."""
    candidates = []
    if source.path:
        candidates += [inside(root, source.path) for root in (mirror, Path())]
    if source.url:
        candidates.append(mirror / _download_name(source))
    for path in candidates:
        if path.exists():
            if not path.is_file():
                raise DataError(f"{path}: not a regular file")
            return path
    return None


def _download_name(source: Source) -> str:
    """Return a url's file name in the mirror: it begins with the digest, so that none collide."""
    name = str(source.url).partition("?")[0].rpartition("/")[2]
    plain = "".join(char if char.isalnum() or char in "._-" else "_" for char in name)
    return f"{str(source.sha256)[:12]}_{plain}"


def _download(source: Source, places: Places) -> Path:
    by_hand = places.mirror / (source.path or _download_name(source))
    advice = f"put the file at {by_hand} by hand"
    if not source.url:
        raise MissingError(
            f"{printable(source.path)}: not found in {places.mirror} nor here; {advice}, or name "
            "the folder that has it with --mirror or PIPELINE_MIRROR"
        )
    path = places.scratch / _download_name(source)
    try:
        with (
            urllib.request.urlopen(source.url, timeout=_TIMEOUT_SECONDS) as answer,
            path.open("wb") as file,
        ):
            while block := answer.read(READ_BYTES):
                file.write(block)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = printable(getattr(error, "reason", error))
        raise MissingError(f"{source.url}: cannot be fetched ({reason}); {advice}") from None
    except OSError as error:
        raise from_os_error(error, path) from None
    return path
