"""What of this process is resident: pages of a mapped file that were read stay until someone gives them back."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

from torch import Tensor

_LIBC = ctypes.CDLL(None, use_errno=True)


def peak_bytes() -> int:
    """The most that was ever resident. Unlike `getrusage`, nothing of the process that started this one."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


class MappedFiles:
    """The files of a folder that this process has mapped at the time of asking."""

    def __init__(self, folder: Path) -> None:
        self._ranges: list[range] = []
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
            addresses, *_, path = line.split(maxsplit=5)
            if path.startswith(f"{folder.resolve()}/"):
                begin, end = (int(word, 16) for word in addresses.split("-"))
                self._ranges.append(range(begin, end))

    def release(self, tensor: Tensor) -> None:
        """Give the pages of a tensor back, where it lies in one of these files; read again, they come from the file again."""
        begin, size = tensor.data_ptr(), tensor.numel() * tensor.element_size()
        if not any(begin in mapped for mapped in self._ranges):
            return
        first, last = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE, (begin + size) // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            _LIBC.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTNEED)
