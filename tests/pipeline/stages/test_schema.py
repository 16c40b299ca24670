"""What `schema` writes: in step with the models and settings of this repository."""

from pathlib import Path

import pytest

from pipeline.__main__ import main

ROOT = Path(__file__).parents[3]


def test_generated_documents_are_in_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    assert main(["schema", "--out", str(tmp_path)]) == 0
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert Path("docs/zoo.md") in written and Path("config/README.md") in written
    stale = [
        name for name in written if (ROOT / name).read_bytes() != (tmp_path / name).read_bytes()
    ]
    assert stale == [], "run `python -m pipeline schema`"
