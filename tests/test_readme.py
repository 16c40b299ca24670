"""What the README tells people to type is typed here, in order, in a fresh copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh( long)?\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project's own files, as after a clone, with this interpreter in front."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("Snakefile", "config", "workflow", "pipeline", "environment.yml", "Makefile"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    return folder


def execute(text: str, folder: Path) -> None:
    """Run a block of shell commands; every command must end well."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(folder)}, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def test_the_readme_has_commands():
    assert len(BLOCKS) >= 4


@pytest.mark.parametrize("text", [text for long, text in BLOCKS if not long])
def test_the_commands_of_the_readme_run(project, text):
    execute(text, project)


def test_make_targets_of_the_readme_exist():
    targets = {word for long, text in BLOCKS if long for word in re.findall(r"make (\S+)", text)}
    assert targets
    for target in targets:
        done = subprocess.run(
            ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_exit_codes_are_those_of_the_errors():
    from pipeline.errors import PipelineError

    codes = {kind.exit_code for kind in PipelineError.__subclasses__()}
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert told == codes | {0, *range(7)}  # the floors stand in a table of numbers too


def test_the_table_of_combinations_is_the_models():
    from pipeline.model import combinations_table

    assert combinations_table().strip() in README
