"""Asking the operating system for punctuality: real-time scheduling and locked memory, or a sentence that says why not."""

from __future__ import annotations

import ctypes
import gc
import os
import sys

REMEDY = (
    "grant it with 'rtprio 60' and 'memlock unlimited' for this user in /etc/security/limits.d/internvla_a1_ros.conf, "
    "or CAP_SYS_NICE and CAP_IPC_LOCK in a container"
)
_MCL_CURRENT, _MCL_FUTURE = 1, 2
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEPT = 1 << 30


def be_punctual(priority: int = 40) -> str:
    """Ask for SCHED_FIFO and locked memory for this process; return "" or the sentence that says what was refused.

    Called before any other thread exists: threads inherit the scheduling of their maker, the middleware's included, so
    that a stop message is received as punctually as the loop runs.
    """
    refusals = []
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except OSError as problem:
        refusals.append(f"SCHED_FIFO priority {priority} refused ({problem.strerror})")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE) != 0:
        refusals.append(f"mlockall refused ({os.strerror(ctypes.get_errno())})")
    # Between callbacks of the executor the loop must not wait 5 ms for the interpreter.
    sys.setswitchinterval(0.0005)
    return f"{'; '.join(refusals)}: {REMEDY}" if refusals else ""


def settle() -> None:
    """Move everything made so far out of the garbage collector's sight: its passes then cost microseconds."""
    gc.collect()
    gc.freeze()


def keep_one_heap() -> None:
    """Let all threads allocate from one heap, and keep what it once grew to.

    Pictures are received by one thread and dropped by another: with a heap for each thread the policy process grew by 15 MB in
    its first minutes, with one by less than 1. Large blocks would be mapped anew each time, and touching their pages for the
    first time takes longer than filling them.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # of glibc
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)


def step_back(niceness: int) -> None:
    """Lower this process's priority, for those that may be late."""
    if niceness > 0:
        os.nice(niceness)
