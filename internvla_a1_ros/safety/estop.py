"""Who holds the e-stop pressed, where several may press it."""

from __future__ import annotations

from collections.abc import Collection


class EstopPresses:
    """A press holds until whoever pressed says otherwise; of one that has gone, until anybody says otherwise afterwards.

    Callers name themselves by whatever tells them apart (a publisher's gid). One thread speaks and looks; `present` is any thread's.
    """

    def __init__(self) -> None:
        self._pressed: dict[bytes, bool] = {}  # by whoever presses: whether somebody has said otherwise since
        self._spoke: set[bytes] = set()
        self._present: frozenset[bytes] | None = None

    def say(self, who: bytes, pressed: bool) -> None:
        """Take what one of them says."""
        self._spoke.add(who)
        if pressed:
            self._pressed[who] = False
            return
        self._pressed.pop(who, None)
        for other in self._pressed:
            self._pressed[other] = True

    def present(self, who: Collection[bytes]) -> None:
        """Take who is there to press at all."""
        self._present = frozenset(who)

    @property
    def held(self) -> bool:
        """Whether the e-stop is pressed."""
        if not self._pressed:
            return False
        present = self._present
        # Names that fit nobody who ever spoke say nothing of who has gone: some middleware calls one publisher by two.
        if present is not None and (not present or present & self._spoke):
            for who in [who for who, released in self._pressed.items() if released and who not in present]:
                del self._pressed[who]
        return bool(self._pressed)
