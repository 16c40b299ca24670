"""What ranks say to one another: sums that have the same bits for any number of ranks.

Gradients are added in one fixed binary tree over micro-batches: neighbours first within a rank,
then across ranks, through shared memory (shared.py) or by recursive doubling. Source: MPI's
recursive doubling (Thakur et al. 2005); unlike a ring all-reduce the order of additions does not
depend on the number of ranks.
"""

import contextlib
import datetime
import os
import subprocess
import zlib
from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.errors import ArtifactError, Resumable, UsageError, printable
from pipeline.training.launcher import Place
from pipeline.training.shared import SharedSum

COLLECTIVE_SECONDS = int(os.environ.get("PIPELINE_COLLECTIVE_SECONDS", "600"))
_PORT_TRIES = 8
_BUCKET_ELEMENTS = 1 << 24


class Ranks:
    """The ranks of one run. With one rank nothing is sent."""

    def __init__(self, place: Place, device: torch.device):
        self.rank, self.size, self.device = place.rank, place.size, device
        self.nodes = [place.node]
        self._shared: SharedSum | None = None
        if self.size > 1:
            _rendezvous(place, device)
            self.nodes = self._gather_names(place.node)
            self._shared = self._share_memory(device)

    def _share_memory(self, device: torch.device) -> SharedSum | None:
        """Return the memory that our launcher gave to its ranks, all on one machine."""
        descriptor = os.environ.get("PIPELINE_SHARED")
        if descriptor is None or device.type != "cpu":
            return None
        return SharedSum(int(descriptor), self.rank, self.size, self._meet)

    def _meet(self) -> None:
        with self._answered():
            dist.all_reduce(torch.zeros(1))

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1:
            dist.destroy_process_group()

    @contextlib.contextmanager
    def _answered(self) -> Iterator[None]:
        """Raise Resumable where another rank is gone or stuck."""
        try:
            yield
        except (dist.DistError, RuntimeError) as error:
            raise Resumable(
                f"rank {self.rank} had no answer from another rank, which is gone or stuck: "
                f"{_first_line(error)}; the same command continues from the last resume point"
            ) from None

    def _gather_names(self, own: str) -> list[str]:
        """Return every rank's node, by integer exchange: no object crosses the wire."""
        name = own.encode()[:64].ljust(64, b"\0")
        table = torch.zeros(self.size, 64, dtype=torch.int64, device=self.device)
        table[self.rank] = torch.tensor(list(name), device=self.device)
        dist.all_reduce(table)
        return [bytes(row.tolist()).rstrip(b"\0").decode() for row in table]

    def sum_integers(self, values: list[int]) -> list[int]:
        """Return the sums over ranks of a few integers."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.int64, device=self.device)
        with self._answered():
            dist.all_reduce(tensor)
        return tensor.tolist()

    def fill_slots(self, slots: Tensor) -> Tensor:
        """Return `slots` (float64) with every rank's own slots filled; the others must be zero.

        x + 0 is exact, so the order in which ranks are added does not matter.
        """
        if self.size > 1:
            slots = slots.to(self.device)
            with self._answered():
                dist.all_reduce(slots)
        return slots.cpu()

    def add_gradients(self, gradients: list[Tensor]) -> None:
        """Add the ranks' gradients in place, as the upper levels of the tree."""
        if self._shared:
            self._shared.add(gradients)
            return
        distance = 1
        while distance < self.size:
            for bucket in _buckets(gradients):
                self._exchange(bucket, self.rank ^ distance)
            distance *= 2

    def _exchange(self, bucket: list[Tensor], partner: int) -> None:
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        other = torch.empty_like(flat)
        with self._answered():
            for request in (dist.isend(flat, partner), dist.irecv(other, partner)):
                if request is not None:
                    request.wait()
        # a + b has the bits of b + a, so both partners hold the same sum.
        flat += other
        for tensor, part in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def require_equal(self, named_digests: dict[str, str], what: str) -> None:
        """Raise ArtifactError on every rank if a digest differs between ranks, naming the first."""
        if self.size == 1:
            return
        own = torch.tensor(
            [zlib.crc32(digest.encode()) for digest in named_digests.values()],
            dtype=torch.int64,
            device=self.device,
        )
        low, high = own.clone(), own.clone()
        with self._answered():
            dist.all_reduce(low, dist.ReduceOp.MIN)
            dist.all_reduce(high, dist.ReduceOp.MAX)
        if (low != high).any():
            first = list(named_digests)[int((low != high).nonzero()[0, 0])]
            raise ArtifactError(f"{what}: ranks hold different values, first in {first}")


def _buckets(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    buckets: list[list[Tensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if filled and filled + tensor.numel() > _BUCKET_ELEMENTS:
            buckets.append([])
            filled = 0
        buckets[-1].append(tensor)
        filled += tensor.numel()
    return buckets


def _rendezvous(place: Place, device: torch.device) -> None:
    backend = "nccl" if device.type == "cuda" else "gloo"
    timeout = datetime.timedelta(seconds=COLLECTIVE_SECONDS)
    try:
        if place.started_by == "torchrun":
            dist.init_process_group(backend, timeout=timeout)
            return
        if place.started_by == "launcher":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
            store: dist.Store = dist.FileStore(os.environ["PIPELINE_STORE"], place.size)
        else:
            store = _job_store(place, timeout)
        dist.init_process_group(
            backend, store=store, rank=place.rank, world_size=place.size, timeout=timeout
        )
    except (dist.DistError, RuntimeError) as error:
        raise Resumable(
            f"rank {place.rank} of {place.size} did not meet the others: {_first_line(error)}"
        ) from None


def _first_line(error: Exception) -> str:
    return printable(str(error).partition("\n")[0], 200)


def _job_store(place: Place, timeout: datetime.timedelta) -> dist.Store:
    """Return the store of a Slurm job: at its first node, on the first free port of a fixed row.

    A port may belong to someone else, so a client asks for the job's name before it trusts one.
    """
    job = os.environ["SLURM_JOB_ID"]
    address = first_node_address(os.environ["SLURM_JOB_NODELIST"])
    step = os.environ.get("SLURM_STEP_ID", "0")
    start = 20000 + zlib.crc32(f"{job}.{step}".encode()) % 20000
    word = f"pretrain-zoo/{job}.{step}"
    patience = timeout if place.rank == 0 else datetime.timedelta(seconds=30)
    problems = []
    for attempt in range(_PORT_TRIES * (1 if place.rank == 0 else 8)):
        port = start + attempt % _PORT_TRIES
        try:
            store = dist.TCPStore(
                address, port, None, place.rank == 0, patience, wait_for_workers=False
            )
            if place.rank == 0:
                store.set("word", word)
            if store.get("word").decode() == word:
                store.set_timeout(timeout)
                return store
        except (dist.DistError, RuntimeError) as error:
            problems.append(f"{address}:{port}: {str(error).splitlines()[0]}")
    raise Resumable(f"rank {place.rank} found no meeting place: {problems[-1]}")


def first_node_address(node_list: str) -> str:
    """Return the address of a Slurm node list's first node."""
    names = _scontrol("show", "hostnames", node_list).split()
    shown = _scontrol("show", "node", names[0])
    for field in shown.split():
        if field.startswith("NodeAddr="):
            return field.partition("=")[2]
    return names[0]


def _scontrol(*arguments: str) -> str:
    try:
        return subprocess.run(
            ["scontrol", *arguments], check=True, capture_output=True, text=True, timeout=60
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise UsageError(f"srun started this rank, but scontrol cannot be asked: {error}") from None
