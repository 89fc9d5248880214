"""What pictures of the head camera say about labels, taken together: read, lying down, unreadable, or not known yet. No clock."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from internvla_a1_ros.runtime.cell_steps import Labels

# Pictures overtake each other by less.
_BACK_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class LabelReading:
    """One code found in a picture.

    `centre` is a fraction of the whole picture, `side` the half of it the code is in. `contrast` is Michelson's, between its light and
    dark modules; `edge_px` is how wide an edge between them is; `size_px` the mean length of its sides. `problem` says why the reading
    does not count, empty where it does.
    """

    text: str
    symbology: str
    centre: tuple[float, float]
    side: str
    size_px: float
    contrast: float
    edge_px: float
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What was found in the picture captured at `stamp_ns`: codes in the labels' region, how much of each region is not background.

    `contrast` and `edge_px` are those of the labels' region as a whole: what there is to say where no code was found.
    """

    stamp_ns: int
    readings: tuple[LabelReading, ...] = ()
    occupied: Mapping[str, float] = field(default_factory=dict)
    contrast: float = 0.0
    edge_px: float = 0.0


class Lying(Enum):
    """What the pictures say of a label."""

    UNKNOWN = "not known yet"
    UP = "up"
    DOWN = "down"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class LabelDecision:
    """How a label lies, its reading where it could be read, and the reason in one sentence."""

    lying: Lying
    reading: LabelReading | None = None
    reason: str = ""


class LabelVotes:
    """Keeps what the last pictures showed and decides over those since a moment. `add` takes pictures in the order of their capture."""

    def __init__(self, spec: Labels, fresh_s: float = 1.0, keep: int = 256) -> None:
        """`fresh_s`: how old the newest picture may be for what no picture shows to be told."""
        self._spec, self._fresh_ns = spec, round(fresh_s * 1e9)
        self._pictures: deque[PictureFacts] = deque(maxlen=keep)

    def add(self, picture: PictureFacts) -> None:
        """Take what one picture showed; one captured before the last is left out, or all before it where time has gone back."""
        if self._pictures and picture.stamp_ns < self._pictures[-1].stamp_ns - _BACK_NS:
            self._pictures.clear()
        if not self._pictures or picture.stamp_ns > self._pictures[-1].stamp_ns:
            self._pictures.append(picture)

    def clear(self) -> None:
        """Forget all pictures."""
        self._pictures.clear()

    def agreed(self, since_ns: int) -> list[str]:
        """Return the texts that at least `agree` pictures captured since `since_ns` read, in order."""
        counts = Counter(text for picture in self._since(since_ns) for text in {r.text for r in picture.readings if not r.problem})
        return sorted(text for text, count in counts.items() if count >= self._spec.agree)

    def _since(self, since_ns: int) -> list[PictureFacts]:
        return [picture for picture in self._pictures if picture.stamp_ns >= since_ns]

    def decide(self, since_ns: int, now_ns: int) -> LabelDecision:
        """Return what the pictures captured since `since_ns` say.

        Up: `agree` of them read the same text and no other text was read as often. Unreadable: different texts were, or the window has
        passed and one in three (and at least `agree`) showed a code that could not be read. Down: fewer did, of at least `agree`. Both need
        pictures that keep coming.
        """
        spec, pictures, agreed = self._spec, self._since(since_ns), self.agreed(since_ns)
        if len(agreed) > 1:
            return LabelDecision(Lying.UNREADABLE, reason=f"got labels {' and '.join(map(repr, agreed))}, expected one in the region")
        if agreed:
            newest = next(r for picture in reversed(pictures) for r in picture.readings if r.text == agreed[0] and not r.problem)
            return LabelDecision(Lying.UP, newest, f"label '{newest.text}' read")
        if now_ns - since_ns < spec.window_s * 1e9:
            return LabelDecision(Lying.UNKNOWN, reason=_why_not(pictures))
        if len(pictures) < spec.agree:
            said = f"got {len(pictures)} pictures of the head camera in {spec.window_s:g} s, expected at least {spec.agree}"
            return LabelDecision(Lying.UNKNOWN, reason=said)
        if pictures[-1].stamp_ns < now_ns - self._fresh_ns:
            silent_s = (now_ns - pictures[-1].stamp_ns) * 1e-9
            said = f"the head camera's last picture is {silent_s:.1f} s old, expected one of the last {self._fresh_ns * 1e-9:.1f} s"
            return LabelDecision(Lying.UNKNOWN, reason=said)
        # Codes are found where none are now and then (a texture, a grid): one picture in three is more than that.
        if sum(1 for picture in pictures if picture.readings) >= max(spec.agree, len(pictures) / 3):
            return LabelDecision(Lying.UNREADABLE, reason=_why_not(pictures))
        return LabelDecision(Lying.DOWN, reason="no code in the region")


def _why_not(pictures: list[PictureFacts]) -> str:
    """Return what is known of a label that was not read: the best of the bad readings, else what the region looks like."""
    if not pictures:
        return "no picture from the head camera"
    bad = [reading for picture in pictures for reading in picture.readings if reading.problem]
    if bad:
        best = max(bad, key=lambda reading: reading.contrast / max(reading.edge_px, 1.0))
        return f"label not readable: {best.problem}"
    last = pictures[-1]
    return f"no code found in the region (its contrast {last.contrast:.2f}, edges {last.edge_px:.1f} px wide)"
