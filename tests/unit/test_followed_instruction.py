"""Plans of a policy that was started anew are not followed while it follows something else than before."""

from __future__ import annotations

from internvla_a1_ros.safety.instruction import FollowedInstruction

A, B = b"a", b"b"


def following(text: str = "pick", who: bytes = A) -> FollowedInstruction:
    made = FollowedInstruction()
    assert not made.hear(text, who, armed=True), "the first is no change"
    return made


def test_a_sender_may_change_what_it_follows() -> None:
    made = following()
    assert made.hear("place", A, armed=True) and not made.strange
    assert not made.hear("place", A, armed=True)


def test_another_in_its_place_must_follow_the_same() -> None:
    made = following()
    assert not made.hear("pick", B, armed=True) and not made.strange
    assert made.hear("place", B, armed=True) and not made.strange, "it is the sender now"
    assert not made.hear("pick", A, armed=True)
    assert made.strange == "plan: the policy was started anew and follows 'pick', not 'place': tell it what to do, or arm anew"


def test_it_is_no_stranger_once_it_is_told() -> None:
    made = following("place")
    made.hear("pick", B, armed=True)
    assert not made.hear("place", B, armed=True) and not made.strange, "the same again"
    made.hear("pick", A, armed=True)
    assert made.strange and made.hear("flip", A, armed=True) and not made.strange, "something else"


def test_one_that_dies_again_is_another_stranger() -> None:
    made = following("place")
    made.hear("pick", B, armed=True)
    made.hear("pick", b"c", armed=True)
    assert made.strange
    made.accept()
    assert made.hear("flip", b"c", armed=True)


def test_a_person_may_accept_it() -> None:
    made = following("place")
    made.hear("pick", B, armed=True)
    made.accept()
    assert not made.strange and not made.hear("pick", B, armed=True) and made.hear("flip", B, armed=True)
    made.accept()
    assert made.hear("pick", B, armed=True), "nothing was strange"


def test_nothing_is_strange_where_nothing_moves_or_nobody_is_told_apart() -> None:
    made = following()
    assert made.hear("place", B, armed=False) and not made.strange
    nameless = following("pick", b"")
    assert nameless.hear("place", b"", armed=True) and not nameless.strange
