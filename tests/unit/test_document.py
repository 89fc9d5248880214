"""YAML documents: what is right is read, what is wrong is one sentence with file, key, got and expected."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, model_validator

from internvla_a1_ros.core.errors import CheckpointError, ConfigurationError, suggestion
from internvla_a1_ros.robots.document import Document, parse_document, read_document


class Wheel(Document):
    radius_m: Annotated[float, Field(gt=0)]
    side: Literal["left", "right"] = "left"

    @model_validator(mode="after")
    def _fits(self) -> Wheel:
        if self.radius_m > 2:
            raise ValueError(f"got a radius of {self.radius_m:g} m, expected one that fits through the door")
        return self


class Cart(Document):
    name: str
    wheels: tuple[Wheel, ...] = ()
    spare: Wheel | None = None
    stored: dict[str, Wheel] = {}
    load_kg: float = 0.0

    @model_validator(mode="after")
    def _is_named(self) -> Cart:
        if not self.name:
            raise ValueError("name: got nothing, expected a name")
        return self


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cart.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(tmp_path: Path, text: str) -> str:
    """Return the sentence without the file's name."""
    path = write(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        read_document(path, Cart)
    sentence = str(caught.value)
    assert sentence.startswith(str(path)) and "\n" not in sentence
    return sentence[len(str(path)) :].removeprefix(": ")


def test_a_document_is_read_and_frozen(tmp_path: Path) -> None:
    cart = read_document(write(tmp_path, "name: one\nwheels: [{radius_m: 0.2}, {radius_m: 0.3, side: right}]\n"), Cart)
    assert [wheel.radius_m for wheel in cart.wheels] == [0.2, 0.3] and cart.wheels[1].side == "right"
    with pytest.raises(ValueError):
        cart.name = "two"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: a\nweels: []", "unknown key 'weels', did you mean 'wheels'?"),
        ("name: a\nwheels: [{radius_m: 1}, {raduis_m: 1}]", "unknown key 'wheels.1.raduis_m', did you mean 'radius_m'?"),
        ("name: a\nspare: {radius_m: 1, sid: left}", "unknown key 'spare.sid', did you mean 'side'?"),
        ("name: a\nstored: {shed: {radius: 1}}", "unknown key 'stored.shed.radius', did you mean 'radius_m'?"),
        ("name: a\nzzz: 1", "unknown key 'zzz', known here: ['load_kg', 'name', 'spare', 'stored', 'wheels']"),
    ],
)
def test_an_unknown_key_names_the_nearest_or_all(tmp_path: Path, text: str, sentence: str) -> None:
    assert refusal(tmp_path, text) == sentence


def test_the_misspelled_key_is_said_and_not_the_missing_one(tmp_path: Path) -> None:
    assert refusal(tmp_path, "nmae: a") == "unknown key 'nmae', did you mean 'name'?"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("load_kg: 1", "key 'name' is missing"),
        ("name: a\nwheels: [{side: left}]", "key 'wheels.0.radius_m' is missing"),
        ("name: a\nwheels: [{radius_m: 0}]", "wheels.0.radius_m: got 0, expected: input should be greater than 0"),
        ("name: a\nwheels: [{radius_m: 1, side: up}]", "wheels.0.side: got 'up', expected: input should be 'left' or 'right'"),
        ("name: a\nwheels: [{radius_m: 3}]", "wheels.0: got a radius of 3 m, expected one that fits through the door"),
        ("name: ''", "name: got nothing, expected a name"),
        ("name: a\nload_kg: .nan", "load_kg: got nan, expected: input should be a finite number"),
        ("name: a\nload_kg: .inf", "load_kg: got inf, expected: input should be a finite number"),
        ("name: a\nload_kg: heavy", "load_kg: got 'heavy', expected: input should be a valid number, unable to parse string as a number"),
        ("name: a\nspare: 3", "spare: got 3, expected: input should be a valid dictionary or instance of Wheel"),
        ("- name\n- a", "got list, expected keys and values"),
        ("", "got NoneType, expected keys and values"),
        ("just words", "got str, expected keys and values"),
    ],
)
def test_what_is_wrong_is_said_with_what_was_got(tmp_path: Path, text: str, sentence: str) -> None:
    assert refusal(tmp_path, text) == sentence


@pytest.mark.parametrize("text", ["name: a\nload_kg: 1\nload_kg: 2", "name: a\nspare: {radius_m: 1, radius_m: 2}"])
def test_a_key_given_twice_is_refused(tmp_path: Path, text: str) -> None:
    assert "twice, expected it once" in refusal(tmp_path, text)


@pytest.mark.parametrize("text", ["name: [a", "name: a\n\tload_kg: 1", "name: @a", "name: !!python/object:os.system a", "? [a, b]\n: 1"])
def test_what_is_not_yaml_is_said_with_its_line(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path, text).startswith(", line ")


@pytest.mark.parametrize("text", ["1: a\nname: b", "null: a\nname: b", "true: a\nname: b"])
def test_keys_that_are_no_words_are_refused(tmp_path: Path, text: str) -> None:
    assert "expected: keys should be strings" in refusal(tmp_path, text)


def test_anchors_and_merges_are_understood_and_what_is_said_here_wins(tmp_path: Path) -> None:
    text = "name: a\nspare: &big {radius_m: 1, side: right}\nwheels: [*big, {<<: *big, radius_m: 0.5}]"
    cart = read_document(write(tmp_path, text), Cart)
    assert [(wheel.radius_m, wheel.side) for wheel in cart.wheels] == [(1, "right"), (0.5, "right")]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, sentence in ((tmp_path / "none.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigurationError, match=f"cannot be read: {sentence}$"):
            read_document(path, Cart)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: Käfig".encode("latin-1"))
    with pytest.raises(ConfigurationError, match="cannot be read: 'utf-8' codec"):
        read_document(latin, Cart)
    control = tmp_path / "control.yaml"
    control.write_bytes(b"name: \x00a")
    with pytest.raises(ConfigurationError, match="not YAML") as caught:
        read_document(control, Cart)
    assert "\n" not in str(caught.value)


def test_the_error_is_of_the_class_asked_for() -> None:
    with pytest.raises(CheckpointError, match=r"^somewhere: key 'name' is missing$"):
        parse_document({}, Cart, "somewhere", CheckpointError)


def test_suggestions_are_near_or_absent() -> None:
    assert suggestion("arx_ac_on", ["genie1", "arx_ac_one"]) == ", did you mean 'arx_ac_one'?"
    assert suggestion("panda", ["genie1", "arx_ac_one"]) == ""
    assert suggestion("panda", []) == ""
