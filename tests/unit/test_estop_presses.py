"""Who holds the e-stop pressed, and when somebody else may release it."""

from __future__ import annotations

from internvla_a1_ros.safety.estop import EstopPresses

A, B, C = b"a", b"b", b"c"


def presses(*said: tuple[bytes, bool], present: set[bytes] | None = None) -> EstopPresses:
    made = EstopPresses()
    for who, pressed in said:
        made.say(who, pressed)
    if present is not None:
        made.present(present)
        made.present(present)
    return made


def test_nobody_presses_at_first() -> None:
    assert not EstopPresses().held
    assert not presses((A, False)).held


def test_who_pressed_may_release() -> None:
    assert presses((A, True)).held
    assert not presses((A, True), (A, False)).held


def test_another_does_not_release_it_while_who_pressed_is_there() -> None:
    made = presses((A, True), (B, False), present={A, B})
    assert made.held
    made.say(B, True)
    made.say(A, False)
    assert made.held
    made.say(B, False)
    assert not made.held


def test_of_one_that_has_gone_anybody_may_release_it_afterwards() -> None:
    made = presses((B, False), (A, True), present={B})
    assert made.held, "gone, and nobody has said otherwise since"
    made.say(B, False)
    for _ in range(2):
        assert made.held, "who was there before it was said does not count, nor a single look"
        made.present({B})
        made.say(B, False)  # again: no news
    assert not made.held
    assert not presses((A, True), (B, False), present=set()).held, "both have gone"


def test_who_is_there_at_one_of_two_looks_is_there() -> None:
    made = presses((A, True), (B, False), present={A, B})
    made.present({B})
    assert made.held
    made.present({B})
    assert not made.held


def test_one_that_presses_again_holds_it_again() -> None:
    assert presses((A, True), (B, False), (A, True), present={B}).held


def test_names_that_fit_nobody_say_nothing_of_who_has_gone() -> None:
    assert presses((A, True), (B, False), present={C}).held
    assert presses((A, True), (B, False)).held, "who is there is not known yet"
