"""Tell why a file is as it is: what made it, from what, and what would make it stale.

Its settings are compared with those of config/ today, its inputs with the files that stand at
their places, and so are those of everything that it was made from.
"""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.catalog import Catalog
from pipeline.config import load_catalog
from pipeline.errors import printable
from pipeline.report.inventory import Artifact, Inventory, scan
from pipeline.report.origin import link_state, note_of, reasons, record_of
from pipeline.report.today import current_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("file", type=Path, help="any file below --results or --data")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--config", type=Path, default=Path("config"), help="settings of today")


def run(args: argparse.Namespace) -> None:
    """Print what made the file, and what has changed since."""
    inventory = scan(args.results, args.data, args.file)
    artifact = record_of(args.file, inventory)
    catalog = load_catalog(args.config) if args.config.is_dir() else None
    note = note_of(args.file, artifact)
    for line in (
        *([note] if note else []),
        *_making(artifact),
        *_inputs(artifact, inventory),
        *_state(artifact, inventory, catalog),
    ):
        print(line)


def _making(artifact: Artifact) -> Iterator[str]:
    versions = ", ".join(f"{name} {v}" for name, v in artifact.stamp.get("versions", {}).items())
    maker = artifact.stage or "something that left no stamp"
    yield f"{printable(artifact.path, 1000)}: made by {maker} ({versions or 'no versions'})"
    settings = list(_leaves(artifact.stamp.get("settings", {})))
    width = max((len(key) for key, _ in settings), default=0)
    yield from (f"  {key:<{width}}  {value}" for key, value in settings)


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
    else:
        yield printable(key), printable(value, 200)


def _inputs(artifact: Artifact, inventory: Inventory) -> Iterator[str]:
    links = inventory.links(artifact)
    yield "from" if links else "from nothing that is recorded"
    width = max((len(link.role) for link in links), default=0)
    for link in links:
        state, path = link_state(artifact, link, inventory)
        words = {"as it was": f"{path}", "changed": f"not here; {path} is another"}
        told = words.get(state, "" if state == "not a file" else state)
        yield f"  {printable(link.role):<{width}}  {link.digest[:12]}  {told}".rstrip()


def _state(artifact: Artifact, inventory: Inventory, catalog: Catalog | None) -> Iterator[str]:
    found = reasons(artifact, inventory, catalog)
    compared = "settings and inputs"
    if catalog is None:
        compared = "inputs (no config/ here)"
    elif current_settings(artifact, catalog) is None:
        compared = "inputs (of its settings config/ says nothing)"
    yield "stale, because" if found else f"up to date: {compared} are what they were"
    for reason in found:
        where = "" if reason.path == artifact.path else f"{reason.path}: "
        yield f"  {where}{reason.text}"
