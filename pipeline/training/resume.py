"""Resume points: what a killed run continues from, kept outside declared outputs.

One file a point, published by rename, so a point is whole or absent. The newest one that verifies
counts; a damaged one is set aside. `{state}/{step to reach}/{digest of settings and inputs}/`.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.artifacts import digest_value, first_difference, remove_leftovers, write_text
from pipeline.errors import ArtifactError, ConfigError, CrashLoopError
from pipeline.training.checkpoint import load_tensors, save_tensors

KEPT_POINTS = 2
MAX_FUTILE_ATTEMPTS = 3


class ResumePoints:
    """The resume points of one unit of work (a segment, a fine-tuning run)."""

    def __init__(self, state: Path, unit: str, stamp: Mapping[str, Any]):
        self.state, self.stamp = state, dict(stamp)
        self.folder = state / unit / digest_value(self.stamp)[:12]

    def remove_others(self) -> None:
        """Remove the points of other units and of other settings."""
        for unit in [p for p in self.state.glob("*") if p.is_dir()]:
            if unit != self.folder.parent:
                shutil.rmtree(unit)
        for other in [p for p in self.folder.parent.glob("*") if p != self.folder]:
            shutil.rmtree(other)

    def save(self, step: int, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        """Publish a point, then remove all but the newest two."""
        path = self.folder / f"step_{step:08d}.safetensors"
        save_tensors(path, tensors, {"stamp": self.stamp, "step": step, "progress": dict(progress)})
        for old in self._files()[:-KEPT_POINTS]:
            old.unlink()
        self._attempts_file.unlink(missing_ok=True)

    def latest(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """Return (step, tensors, progress) of the newest point that verifies, or None.

        A damaged point is renamed to `damaged-...` and passed over. Raises ConfigError for a point
        that was made for other settings than its folder says.
        """
        for path in reversed(self._files()):
            remove_leftovers(path)
            try:
                tensors, metadata = load_tensors(path)
            except ArtifactError:
                path.rename(path.with_name(f"damaged-{path.name}"))
                continue
            if different := first_difference(self.stamp, metadata["stamp"]):
                raise ConfigError(f"{path}: made for other settings: {different}")
            return metadata["step"], tensors, metadata["progress"]
        return None

    def count_attempt(self, step: int) -> None:
        """Note a start at `step`. Raises CrashLoopError after three starts without a new point."""
        starts = []
        if self._attempts_file.exists():
            starts = json.loads(self._attempts_file.read_text())
        if starts.count(step) >= MAX_FUTILE_ATTEMPTS:
            raise CrashLoopError(
                f"{self.folder}: {MAX_FUTILE_ATTEMPTS} attempts from step {step} died before the "
                "next resume point; see their logs, then remove this folder to try again"
            )
        write_text(self._attempts_file, json.dumps([*starts, step]))

    def forgive_attempt(self) -> None:
        """Forget the attempts: this one ended as it should."""
        self._attempts_file.unlink(missing_ok=True)

    @property
    def _attempts_file(self) -> Path:
        return self.folder / "attempts.json"

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("step_*.safetensors"))
