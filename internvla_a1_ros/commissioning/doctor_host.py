"""Looks at this host for the doctor: load, memory, real-time permissions, disk, GPU. Reads, changes nothing."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import threading
from pathlib import Path

import psutil

from internvla_a1_ros.commissioning.doctor_facts import Gpu, Machine

_CAP_IPC_LOCK = 14
RT_PRIORITY = 40  # what the command process asks for (nodes/realtime.py)
_GPU_QUERY = ("nvidia-smi", "--query-gpu=name,utilization.gpu,memory.used,memory.total,temperature.gpu", "--format=csv,noheader,nounits")


class HostWatch:
    """Measures load from its making on."""

    def __init__(self) -> None:
        psutil.cpu_percent(None)

    def seen(self, record_folder: Path) -> Machine:
        """Return what this host was like since; `record_folder` need not exist yet."""
        share = psutil.cpu_percent(None) / 100
        folder = record_folder.expanduser().absolute()
        there = next(each for each in (folder, *folder.parents) if each.is_dir())
        return Machine(
            cpu_share=share,
            cores=psutil.cpu_count() or 1,
            memory_free_bytes=int(psutil.virtual_memory().available),
            realtime=realtime_granted(),
            memory_lockable=memory_lockable(),
            record_folder=str(record_folder),
            disk_free_bytes=shutil.disk_usage(there).free,
            disk_writable=os.access(there, os.W_OK | os.X_OK),
            gpus=gpus(),
        )


def realtime_granted() -> bool:
    """Return whether a process started from here gets real-time scheduling: tried, in a thread that ends at once."""
    granted = []

    def attempt() -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(RT_PRIORITY))
            granted.append(True)
        except OSError:
            pass

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return bool(granted)


def memory_lockable() -> bool:
    """Return whether a process started from here may lock all its memory."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return soft == resource.RLIM_INFINITY or _capable(_CAP_IPC_LOCK)


def _capable(bit: int) -> bool:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    line = next((line for line in status.splitlines() if line.startswith("CapEff:")), "CapEff: 0")
    return bool(int(line.split()[1], 16) >> bit & 1)


def gpus() -> tuple[Gpu, ...]:
    """Return the NVIDIA GPUs that `nvidia-smi` tells of; none where it is missing or does not answer within 5 s."""
    try:
        told = subprocess.run(_GPU_QUERY, capture_output=True, text=True, timeout=5, stdin=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return read_gpus(told.stdout) if told.returncode == 0 else ()


def read_gpus(told: str) -> tuple[Gpu, ...]:
    """Return the GPUs in the lines of `nvidia-smi`; a line with a figure that it does not support is left out."""
    found = []
    for line in told.splitlines():
        try:
            name, busy, used, whole, degrees = (part.strip() for part in line.rsplit(",", 4))
            found.append(Gpu(name, float(busy) / 100, float(used) / float(whole), float(degrees)))
        except (ValueError, ZeroDivisionError):
            continue
    return tuple(found)
