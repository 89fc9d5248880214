"""Single pictures out of a video file, by time: forward without seeking, elsewhere from the nearest key frame before."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np

from internvla_a1_ros.bags.datasets.info import DatasetError
from internvla_a1_ros.core.types import ByteArray

# Where PyAV does not tell the key frames (15 does not): farther ahead than this, seeking is guessed to be cheaper than decoding on.
_FAR_S = 0.3


class _Kept(threading.local):
    """Videos that this thread has open, by file; the longest unused one first."""

    def __init__(self) -> None:
        self.videos: OrderedDict[tuple[int, Path, int, int], Video] = OrderedDict()


_kept = _Kept()
_KEPT_VIDEOS = 8  # two datasets of three or four cameras


def kept_open(path: Path) -> Video:
    """Return the video, which stays open for this thread's next ask: of a file of many episodes the index alone costs some 20 ms to read.

    Raises DatasetError as `Video`. A file that has changed is opened again, and another process opens its own.
    """
    try:
        told = path.stat()
    except OSError:
        raise DatasetError(f"{path}: the video is missing") from None
    key = (os.getpid(), path, told.st_mtime_ns, told.st_size)
    video = _kept.videos.pop(key, None) or Video(path)
    _kept.videos[key] = video
    while len(_kept.videos) > _KEPT_VIDEOS:
        _kept.videos.popitem(last=False)  # whoever still reads from it holds it; it is closed with its last holder
    return video


class Video:
    """A video file that is open for reading; use it with `with`. Belongs to one thread.

    Raises DatasetError where the file is missing, holds no video or does not decode.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._container = av.open(str(path))
        except FileNotFoundError:
            raise DatasetError(f"{path}: the video is missing") from None
        except (av.FFmpegError, OSError) as problem:
            raise DatasetError(f"{path}: cannot be read as a video: {problem.strerror}") from None
        if not self._container.streams.video:
            self._container.close()
            raise DatasetError(f"{path}: holds no video")
        self._stream = self._container.streams.video[0]
        self._frames: Iterator[Any] = iter(())
        self._last: Any = None

    def __enter__(self) -> Video:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._container.close()

    @property
    def frames(self) -> int:
        """How many pictures the file says it holds, 0 where it does not say."""
        return int(self._stream.frames)

    def at(self, time_s: float, tolerance_s: float) -> ByteArray:
        """Return the picture [height, width, 3] RGB that is shown at `time_s` from the file's start.

        Raises DatasetError where none lies within `tolerance_s`.
        """
        try:
            if self._last is None or self._last.time > time_s + tolerance_s or self._key_frame_between(time_s):
                self._seek(time_s)
            while self._last is None or self._last.time < time_s - tolerance_s:
                self._last = next(self._frames)
        except StopIteration:
            end = "no pictures" if self._last is None else f"its last picture at {self._last.time:.3f} s"
            self._last = None
            raise DatasetError(f"{self.path}: got {end}, expected one at {time_s:.3f} s") from None
        except av.FFmpegError as problem:
            self._last = None
            raise DatasetError(f"{self.path}: cannot be decoded at {time_s:.3f} s: {problem.strerror}") from None
        if self._last.time > time_s + tolerance_s:
            raise DatasetError(f"{self.path}: got a picture at {self._last.time:.3f} s, expected one at {time_s:.3f} s")
        return np.asarray(self._last.to_ndarray(format="rgb24"), dtype=np.uint8)

    def _pts(self, time_s: float) -> int:
        return round(time_s / float(self._stream.time_base or 1)) + int(self._stream.start_time or 0)

    def _key_frame_between(self, time_s: float) -> bool:
        """Whether a key frame lies between the picture at hand and `time_s`: then seeking saves decoding."""
        entries = getattr(self._stream, "index_entries", None)
        if entries is None:
            return bool(time_s - self._last.time > _FAR_S)
        at = entries.search_timestamp(self._pts(time_s), backward=True)
        return bool(at >= 0 and entries[at].timestamp > self._last.pts)

    def _seek(self, time_s: float) -> None:
        self._container.seek(self._pts(time_s), stream=self._stream, backward=True)
        self._frames = self._container.decode(self._stream)
        self._last = None
