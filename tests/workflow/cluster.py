"""A real Slurm on this machine: one controller, two node daemons, started and stopped by the tests.

Settings must stand in /etc/slurm/slurm.conf: Snakemake's plugin removes SLURM_CONF from the
environment of jobs. An earlier file is put back.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

SETTINGS = Path("/etc/slurm/slurm.conf")
TEMPLATE = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool_%n
SlurmdPidFile={folder}/slurmd_%n.pid
SlurmdLogFile={folder}/slurmd_%n.log
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port=17001 CPUs=4 RealMemory=64000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port=17002 CPUs=4 RealMemory=64000
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
START_SECONDS = 60


def reason_to_skip() -> str:
    """Return why no cluster can be started here; empty if it can."""
    missing = [name for name in ("slurmctld", "slurmd", "munged") if not shutil.which(name)]
    if missing:
        return f"{', '.join(missing)} not installed (apt-get install slurm-wlm munge)"
    if os.geteuid() != 0:
        return "only root can start a Slurm"
    if SETTINGS.exists() and _succeeds("scontrol", "ping"):
        return "another Slurm runs on this machine"
    return ""


@contextlib.contextmanager
def running_cluster(folder: Path) -> Iterator[None]:
    """Run the controller and the nodes n1 and n2 while the block runs."""
    (folder / "state").mkdir(parents=True)
    for node in ("n1", "n2"):
        (folder / f"spool_{node}").mkdir()
    host = socket.gethostname().partition(".")[0]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_settings(TEMPLATE.format(host=host, folder=folder)))
        stack.enter_context(_munge())
        stack.callback(_stop, folder)
        subprocess.run(["slurmctld"], check=True, timeout=START_SECONDS)
        for node in ("n1", "n2"):
            subprocess.run(["slurmd", "-N", node], check=True, timeout=START_SECONDS)
        _await("srun", "-N2", "-n2", "true")
        stack.callback(_cancel_jobs)
        yield


@contextlib.contextmanager
def _settings(text: str) -> Iterator[None]:
    earlier = SETTINGS.read_bytes() if SETTINGS.exists() else None
    SETTINGS.parent.mkdir(parents=True, exist_ok=True)
    SETTINGS.write_text(text, encoding="utf-8")
    try:
        yield
    finally:
        SETTINGS.unlink()
        if earlier is not None:
            SETTINGS.write_bytes(earlier)


@contextlib.contextmanager
def _munge() -> Iterator[None]:
    """Run the authentication daemon, unless one answers."""
    if _credentials_work():
        yield
        return
    for name in ("/run/munge", "/var/log/munge", "/var/lib/munge"):
        Path(name).mkdir(exist_ok=True)
        shutil.chown(name, "munge", "munge")
    Path("/run/munge").chmod(0o755)
    subprocess.run(["runuser", "-u", "munge", "--", "munged"], check=True, timeout=START_SECONDS)
    try:
        yield
    finally:
        _end(Path("/run/munge/munged.pid"))


def _credentials_work() -> bool:
    made = subprocess.run(["munge", "-n"], capture_output=True, check=False)
    return made.returncode == 0 and _succeeds("unmunge", input=made.stdout)


def _cancel_jobs() -> None:
    """End all jobs of this cluster and wait for their last processes."""
    for state in ("PENDING", "RUNNING"):
        subprocess.run(["scancel", f"--state={state}"], check=False)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        left = subprocess.run(["squeue", "--noheader"], capture_output=True, check=False)
        if not left.stdout:
            return
        time.sleep(0.5)


def _stop(folder: Path) -> None:
    for pid_file in sorted(folder.glob("*.pid")):
        _end(pid_file)


def _end(pid_file: Path) -> None:
    """End the daemon that wrote the file, and wait until it is gone."""
    if not pid_file.exists():
        return
    process = Path("/proc") / pid_file.read_text().strip()
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(process.name), signal.SIGTERM)
    deadline = time.monotonic() + START_SECONDS
    while process.exists() and time.monotonic() < deadline:
        time.sleep(0.1)


def _succeeds(*command: str, input: bytes | None = None) -> bool:
    done = subprocess.run(command, input=input, capture_output=True, timeout=30, check=False)
    return done.returncode == 0


def _await(*command: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _succeeds(*command):
        assert time.monotonic() < deadline, f"{' '.join(command)} failed for {START_SECONDS} s"
        time.sleep(0.5)
