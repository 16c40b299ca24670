"""Worker processes of a data stage: results in order, failures told, no orphans."""

import ctypes
import multiprocessing
import os
import resource
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from pipeline.errors import PipelineError

Item = TypeVar("Item")
Result = TypeVar("Result")

_PR_SET_PDEATHSIG = 1
# Workers share what the parent has loaded; nothing of ours runs threads before this point.
_context = multiprocessing.get_context("fork")


def iter_parallel(
    function: Callable[[Item], Result], items: Iterable[Item], processes: int
) -> Iterator[Result]:
    """Yield function(item) for each item, in the order of the items.

    With one process the calls are made here. A worker's error is raised here as it is; a worker
    that is killed raises PipelineError naming the signal. Workers die with this process.
    """
    work = deque(enumerate(items))
    if min(processes, len(work)) <= 1:
        for _, item in work:
            yield function(item)
        return
    workers = [_Worker(function) for _ in range(min(processes, len(work)))]
    try:
        yield from _collect(workers, work)
    finally:
        for worker in workers:
            worker.stop()


def _collect(workers: list["_Worker"], work: deque[tuple[int, Any]]) -> Iterator[Any]:
    done: dict[int, Any] = {}
    following = 0
    for worker in workers:
        worker.give(work.popleft())
    busy = {worker.pipe: worker for worker in workers}
    while busy:
        for pipe in wait(list(busy)):
            worker = busy[pipe]  # type: ignore[index]
            number, result = worker.take()
            done[number] = result
            if work:
                worker.give(work.popleft())
            else:
                del busy[pipe]  # type: ignore[arg-type]
        while following in done:
            yield done.pop(following)
            following += 1


class _Worker:
    def __init__(self, function: Callable[[Any], Any]):
        self.pipe, theirs = _context.Pipe()
        self._process: BaseProcess = _context.Process(
            target=_serve, args=(function, theirs, os.getpid()), daemon=True
        )
        self._process.start()
        theirs.close()

    def give(self, task: tuple[int, Any]) -> None:
        self.pipe.send(task)

    def take(self) -> tuple[int, Any]:
        try:
            number, result, error = self.pipe.recv()
        except EOFError:
            self._process.join()
            raise PipelineError(_obituary(self._process.exitcode or 0)) from None
        if isinstance(error, PipelineError):
            raise error
        if error is not None:
            raise RuntimeError(f"in a worker process:\n{error}")
        return number, result

    def stop(self) -> None:
        self.pipe.close()
        # Not SIGTERM: a handler of the parent's is inherited, and may have let it live on.
        self._process.kill()
        self._process.join()


def _obituary(code: int) -> str:
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    if code >= 0:
        return f"a worker process ended by itself with exit code {code}"
    hint = "; perhaps out of memory: grant more, or use fewer processes" if code == -9 else ""
    return f"a worker process was killed by {signal.Signals(-code).name} (peak {peak} MB){hint}"


def die_with_parent(parent: int, code: int) -> None:
    """Ask the kernel to kill this process when `parent` dies; exit with `code` if it is dead.

    So that no orphan keeps a lock or goes on writing.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we could ask
        os._exit(code)


def _serve(function: Callable[[Any], Any], pipe: Connection, parent: int) -> None:
    die_with_parent(parent, PipelineError.exit_code)
    while True:
        try:
            number, item = pipe.recv()
        except EOFError:
            return
        answer: tuple[int, Any, PipelineError | str | None]
        try:
            answer = (number, function(item), None)
        except PipelineError as error:
            answer = (number, None, error)
        except BaseException:
            answer = (number, None, traceback.format_exc())
        pipe.send(answer)
