"""Who holds the e-stop pressed, where several may press it."""

from __future__ import annotations

from collections.abc import Collection


class EstopPresses:
    """A press holds until whoever pressed says otherwise; of one that has gone, until anybody says otherwise afterwards.

    Callers name themselves by whatever tells them apart (a publisher's gid). One thread speaks and asks; another one may look who is there.
    """

    def __init__(self) -> None:
        self._pressed: dict[bytes, bool] = {}  # by whoever presses: whether somebody has said otherwise since
        self._spoke: set[bytes] = set()
        self._news = 0  # how often what is above changed its meaning
        # Who was there when it was last looked, and the time before; how many news there had been by then.
        self._look: tuple[int, frozenset[bytes], frozenset[bytes] | None] = (-1, frozenset(), None)

    def say(self, who: bytes, pressed: bool) -> None:
        """Take what one of them says."""
        self._spoke.add(who)
        if pressed:
            self._news += self._pressed.get(who) is not False
            self._pressed[who] = False
            return
        self._pressed.pop(who, None)
        for other, released in self._pressed.items():
            self._news += not released
            self._pressed[other] = True

    def present(self, who: Collection[bytes]) -> None:
        """Take who is there to press at all."""
        news, (former_news, former, _) = self._news, self._look
        self._look = news, frozenset(who), former if news == former_news else None

    @property
    def held(self) -> bool:
        """Whether the e-stop is pressed."""
        if self._pressed:
            self._forget_who_has_gone()
        return bool(self._pressed)

    def _forget_who_has_gone(self) -> None:
        """Only two looks since the last news tell: who has just come may be heard before it is seen."""
        news, present, before = self._look
        if news != self._news or before is None:
            return
        there = present | before
        if there and not there & self._spoke:  # names that fit nobody who ever spoke: some middleware calls one publisher by two
            return
        for who in [who for who, released in self._pressed.items() if released and who not in there]:
            del self._pressed[who]
