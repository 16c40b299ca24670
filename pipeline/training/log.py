"""What a run tells while it runs: metrics as JSON lines and TensorBoard files, in one directory."""

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.errors import from_os_error


class MetricsLog:
    """Appends metrics to `folder`/metrics.jsonl and to TensorBoard files beside it.

    Lines carry `time` and speeds, which differ from run to run: they are no artefact.
    """

    def __init__(self, folder: Path, start_step: int = 0):
        """Open the log and drop lines beyond `start_step`, which will be made again.

        Raises StorageError when the disk refuses, here and in `write`.
        """
        self.path = folder / "metrics.jsonl"
        with self._told():
            folder.mkdir(parents=True, exist_ok=True)
            lines = self.path.read_text().splitlines() if self.path.exists() else []
            kept = [line for line in lines if line.endswith("}") and _step(line) <= start_step]
            self._file = self.path.open("w", encoding="utf-8")
            self._file.writelines(f"{line}\n" for line in kept)
        # Imported here: TensorBoard takes a second to import and only rank 0 writes.
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(folder / "tensorboard", ignore_errors=True) if not start_step else None
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start_step + 1)

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Append one line; `metrics` has `step`."""
        line = {**metrics, "time": round(time.time(), 3)}
        with self._told():
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        for name, value in metrics.items():
            if name != "step" and isinstance(value, int | float):
                self._board.add_scalar(name, value, metrics["step"])

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise from_os_error(error, self.path) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._board.close()


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return 1 << 62  # torn by a kill: drop it
