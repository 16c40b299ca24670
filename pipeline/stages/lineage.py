"""Show what a file was made from, step by step, back to the digests of the texts.

Inputs are found by digest among the files of --results and --data, whatever their names are.
"""

import argparse
from pathlib import Path

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from pipeline.errors import printable
from pipeline.report.inventory import Artifact, Inventory, scan
from pipeline.report.origin import link_state, note_of, record_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("file", type=Path, help="any file below --results or --data")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--data", type=Path, default=Path("data"))


def run(args: argparse.Namespace) -> None:
    """Print the tree; what stands in it twice is shown in full once."""
    inventory = scan(args.results, args.data, args.file)
    artifact = record_of(args.file, inventory)
    if note := note_of(args.file, artifact):
        print(note)
    tree = Tree(_label(artifact, artifact.digest), guide_style="dim")
    _grow(tree, artifact, inventory, {artifact.path})
    # Wide enough for any path: a line that is cut or folded cannot be copied.
    Console(highlight=False, width=400).print(tree, soft_wrap=True)


def _label(artifact: Artifact, digest: str, role: str = "") -> Text:
    head = f"{role} " if role else ""
    made = f", made by {artifact.stage}" if artifact.stage else ""
    return Text(f"{head}{digest[:12]} {printable(artifact.path, 1000)}{made}")


def _grow(tree: Tree, artifact: Artifact, inventory: Inventory, shown: set[Path]) -> None:
    for link in inventory.links(artifact):
        if link.source is None:
            state, path = link_state(artifact, link, inventory)
            hint = {"changed": f" not here; {path} is another", "not here": " not here"}.get(
                state, ""
            )
            tree.add(Text(f"{printable(link.role)} {link.digest[:12]}{hint}"))
            continue
        label = _label(link.source, link.digest, printable(link.role))
        if link.source.path in shown:
            if inventory.links(link.source):
                label.append(", see above")
            tree.add(label)
            continue
        shown.add(link.source.path)
        _grow(tree.add(label), link.source, inventory, shown)
