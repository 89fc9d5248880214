"""Which instruction plans follow, as their sender announces it: one that was started anew begins with its first, not with the last."""

from __future__ import annotations


class FollowedInstruction:
    """A sender may change what it follows. Another one, in its place while the arms are armed, must follow what was followed before.

    Until it does (a cell tells it again), it is told something else, or a person arms or resumes, its plans are `strange`: why, '' where
    they are not. One thread hears; another may read and accept.
    """

    def __init__(self) -> None:
        self.strange = ""
        self._text: str | None = None
        self._sender = b""
        self._stranger = ("", b"")

    def hear(self, text: str, who: bytes, *, armed: bool) -> bool:
        """Take what `who` (a publisher's gid, empty where that is not known) announces; return whether the instruction changed."""
        told_since = self.strange and who == self._stranger[1]
        if armed and self._text not in (None, text) and who not in (self._sender, b"") and not told_since:
            self._stranger = text, who
            self.strange = f"plan: the policy was started anew and follows '{text}', not '{self._text}': tell it what to do, or arm anew"
            return False
        changed = self._text not in (None, text)
        self._text, self._sender, self.strange = text, who, ""
        return changed

    def accept(self) -> None:
        """Take what is followed now for what is wanted."""
        if self.strange:
            (self._text, self._sender), self.strange = self._stranger, ""
