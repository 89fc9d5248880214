"""One process at a time: a lock that goes with its process, however that ends, and leaves no file behind."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from internvla_a1_ros.core.errors import ConfigurationError


@contextmanager
def alone(folder: Path, busy: str = "") -> Iterator[None]:
    """Inside, no other process is alone in `folder`, which is there. `busy`: what to say where one is; empty: wait until it has ended.

    Raises ConfigurationError. Where the file system knows no locks there is none.
    """
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise ConfigurationError(busy) from None
        except OSError as problem:
            if problem.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        yield
    finally:
        os.close(opened)
