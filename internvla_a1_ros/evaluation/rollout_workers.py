"""Rollouts in several processes: each asks for the next job when it is done with one; one that dies ends the run with a sentence."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.evaluation.rollout_rig import Job, Order, Rig

# Given what has been told so far: the next job, None where there is no more.
Next = Callable[[], "Job | None"]


def run_jobs(order: Order, following: Next, workers: int) -> Iterator[dict[str, Any]]:
    """Yield the rows as they come; in this process where `workers` is 1. Raises ConfigurationError where a worker cannot work."""
    if workers > 1:
        yield from _run_beside(order, following, workers)
        return
    rig = Rig(order)
    try:
        while (job := following()) is not None:
            yield rig.run(job)
    finally:
        rig.close()


def _run_beside(order: Order, following: Next, workers: int) -> Iterator[dict[str, Any]]:
    context = multiprocessing.get_context("spawn")  # forks of a process that has threads and an OpenGL context do not work
    lines: dict[Connection, Any] = {}
    try:
        for _ in range(workers):
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(order, there), daemon=True)
            _start(process)
            there.close()
            lines[here] = process
        while lines:
            for line in wait(list(lines)):
                assert isinstance(line, Connection)
                told = _told(line, lines[line])
                if isinstance(told, dict):
                    yield told
                job = following()
                with suppress(OSError):
                    line.send(job)
                if job is None:
                    lines.pop(line).join()
    finally:
        for process in lines.values():
            process.terminate()
            process.join()


def _start(process: Any) -> None:
    """Ctrl-C is the parent's business, from the child's first instruction on."""
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, former)


def _told(line: Connection, process: Any) -> dict[str, Any] | None:
    """Return a row, None where the worker has only just begun."""
    try:
        told = line.recv()
    except EOFError:
        process.join()
        raise ConfigurationError(f"rollouts: a worker ended with exit code {process.exitcode}, expected a result: memory?") from None
    if isinstance(told, Exception):
        raise told
    row: dict[str, Any] | None = told
    return row


def _work(order: Order, line: Connection) -> None:
    """The worker: one thread."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        import cv2

        cv2.setNumThreads(1)
        rig = Rig(order)
        line.send(None)
        while (job := line.recv()) is not None:
            line.send(rig.run(job))
        rig.close()
    except ConfigurationError as problem:
        line.send(problem)
    except (EOFError, BrokenPipeError):  # the parent is gone
        return
