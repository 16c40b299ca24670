"""Workers: results in order, errors as they are, deaths told, no orphans."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import DataError, PipelineError
from pipeline.text.workers import iter_parallel

ROOT = Path(__file__).parents[3]


def slow_square(number):
    sum(range(300_000 * (number % 3 == 0)))  # some are done later than those behind them
    return number * number


def fail(number):
    if number == 2:
        raise DataError("file:7: bad", "file:9: bad")
    return number


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_results_come_in_the_order_of_the_items(processes):
    assert list(iter_parallel(slow_square, range(10), processes)) == [n * n for n in range(10)]


def test_no_items_start_no_process():
    assert list(iter_parallel(slow_square, [], 4)) == []


@pytest.mark.parametrize("processes", [1, 3])
def test_an_error_of_ours_arrives_as_it_is(processes):
    with pytest.raises(DataError) as caught:
        list(iter_parallel(fail, range(5), processes))
    assert caught.value.problems == ("file:7: bad", "file:9: bad")


def divide(number):
    return 1 // number


def test_a_bug_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(iter_parallel(divide, [1, 0, 1], 2))


def die(number):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_killed_worker_is_told():
    with pytest.raises(PipelineError, match=r"killed by SIGKILL \(peak \d+ MB\); perhaps out of"):
        list(iter_parallel(die, range(4), 2))


def leave(number):
    os._exit(3)


def test_a_worker_that_leaves_is_told():
    with pytest.raises(PipelineError, match="ended by itself with exit code 3"):
        list(iter_parallel(leave, range(2), 2))


def test_workers_end_whatever_their_parent_does_on_a_signal():
    """A handler that only notes SIGTERM, as training has, is inherited by a forked worker."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        assert list(iter_parallel(abs, [-1, 2, -3], 2)) == [1, 2, 3]
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not multiprocessing.active_children()


def test_workers_die_with_their_parent():
    code = (
        "import os, signal\n"
        "from pipeline.text.workers import iter_parallel\n"
        "def work(n):\n"
        "    os.write(1, b'%d\\n' % os.getpid())\n"
        "    signal.pause()\n"
        "list(iter_parallel(work, range(2), 2))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    children = [int(parent.stdout.readline()) for _ in range(2)]
    parent.kill()
    parent.wait()
    until = time.monotonic() + 10
    while any(alive(child) for child in children):
        assert time.monotonic() < until, "workers outlive their parent"


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
