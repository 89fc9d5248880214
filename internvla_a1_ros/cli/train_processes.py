"""The other processes of a run that asks for several: started beside this one, which is the first of them and leads."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import typer

from internvla_a1_ros.core.errors import ConfigurationError

# glibc then asks for memory in pages of 2 MB, where Linux gives them to whoever asks: what a step allocates is there sooner. It is read
# when a process starts, so this is for whoever starts one.
LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

_LOOPBACK = "127.0.0.1"
_GRACE_S = 5.0  # in which a process that lost another hears of it by itself
_PATIENCE_S = 30.0  # what the others have to end in when the leader has: all stop after the same step


@contextmanager
def beside(words: list[str], processes: int, threads: int) -> Iterator[None]:
    """Inside, `processes` - 1 others do `internvla-a1 words` too, `threads` each, and the environment says who is who, as of `torchrun`.

    Raises ConfigurationError with the last line of one that failed where this one did not. Nothing is left running.
    """
    with socket.socket() as free:
        free.bind((_LOOPBACK, 0))
        port = free.getsockname()[1]
    size = str(processes)
    meeting = {"MASTER_ADDR": _LOOPBACK, "MASTER_PORT": str(port), "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    meeting["OMP_NUM_THREADS"] = str(threads)
    if sys.platform == "linux":
        meeting["GLOO_SOCKET_IFNAME"] = "lo"
    former = dict(os.environ)
    with tempfile.TemporaryFile("w+") as complaints:
        others = [
            subprocess.Popen(
                [sys.executable, "-m", "internvla_a1_ros.cli.main", *words],
                env=former | meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.DEVNULL,
                stderr=complaints,
            )
            for rank in range(1, processes)
        ]
        left = threading.Event()
        watch = threading.Thread(target=_watched, args=(others, complaints, left), daemon=True)
        watch.start()
        try:
            os.environ.update(meeting, RANK="0", LOCAL_RANK="0")
            try:
                yield
            except typer.Exit:  # a RuntimeError, and no failure: a person stopped it, as the others hear too
                ended(others, _GRACE_S)
                raise
            except RuntimeError:
                if ended(others):  # then this is only how one hears of it
                    _all_well(others, complaints)
                raise
            except BaseException:  # what this one has found the others have too, and may be writing it down
                ended(others, _GRACE_S)
                raise
            finally:
                left.set()
                watch.join()
            ended(others, _PATIENCE_S)
        finally:
            for other in others:
                if other.poll() is None:
                    other.kill()
                    other.wait()
            os.environ.clear()
            os.environ.update(former)
        _all_well(others, complaints)


def ended(others: list[subprocess.Popen[bytes]], within_s: float = 1.0) -> bool:
    """Wait for all to end; return whether they have."""
    until = time.monotonic() + within_s
    try:
        for other in others:
            other.wait(timeout=max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def _watched(others: list[subprocess.Popen[bytes]], complaints: IO[str], left: threading.Event) -> None:
    """End this process where another ended badly and it does not hear of it: it may be waiting to meet it, deaf to signals, for hours."""
    while not left.wait(0.5):
        if any(other.poll() for other in others) and not left.wait(_GRACE_S):
            try:
                _all_well(others, complaints)
            except ConfigurationError as problem:
                print(f"error: {problem}", file=sys.stderr, flush=True)
            for other in others:
                other.kill()
            os._exit(2)


def _all_well(others: list[subprocess.Popen[bytes]], complaints: IO[str]) -> None:
    """Raise ConfigurationError where one ended badly; one that had to be killed did."""
    code = next((other.returncode for other in others if other.returncode), 0)
    if code:
        complaints.seek(0)
        lines = [line.strip().removeprefix("error: ") for line in complaints if line.strip()]
        how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}: {lines[-1] if lines else 'it said nothing'}"
        raise ConfigurationError(f"of {len(others) + 1} processes one {how}; what was saved stays")
