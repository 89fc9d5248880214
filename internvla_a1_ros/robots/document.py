"""YAML documents read through pydantic models that refuse unknown keys and answer with one sentence; and files written whole."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from internvla_a1_ros.core.errors import ConfigurationError, suggestion


class Document(BaseModel):
    """Base of everything people write in YAML: frozen; an unknown key and a number that is not finite are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


D = TypeVar("D", bound=Document)


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML keeps the last of two equal keys without a word; a limit given twice must not be a matter of order."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<` takes another mapping's keys over
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "got a list or mapping as a key, expected a word", key_node.start_mark)
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"got key '{key}' twice, expected it once", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_document(path: Path, model: type[D], error: type[ConfigurationError] = ConfigurationError) -> D:
    """Return the YAML file at `path` as `model`. Raises `error` with the file, the key, what was got and what was expected."""
    return parse_document(read_mapping(path, error), model, str(path), error)


def read_mapping(path: Path, error: type[ConfigurationError] = ConfigurationError) -> dict[str, Any]:
    """Return the keys and values of the YAML file at `path`. Raises `error` with the file, the line and what was got."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError as problem:
        raise error(f"{path}: cannot be read: {problem}") from None
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}"
        raise error(f"{path}{where}: not YAML: {getattr(problem, 'problem', None) or str(problem).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise error(f"{path}: got {type(content).__name__}, expected keys and values")
    return content


def overlaid(below: Any, above: Any) -> Any:
    """Return `above` laid over `below`: mappings key by key, lists of named things by their name, anything else is replaced."""
    if isinstance(below, dict) and isinstance(above, dict):
        return {**below, **{key: overlaid(below[key], value) if key in below else value for key, value in above.items()}}
    key = next((key for key in _NAMES if _all_have(below, key) and _all_have(above, key)), None)
    if key is None:
        return above
    named = {item[key]: item for item in above}
    if len(named) < len(above):  # a name twice: whoever reads the document says so
        return above
    kept = [overlaid(item, named.pop(item[key])) if item[key] in named else item for item in below]
    return [*kept, *named.values()]


# What pydantic adds to a place for the member of a union that it tried: a document's class, or the words allowed.
_UNION_MEMBER = re.compile(r"^([A-Z]\w*|literal\[.*\]|function-\w+\[.*\])$")
# What tells the items of a list apart.
_NAMES = ("name", "joint")


def _all_have(items: Any, key: str) -> bool:
    return isinstance(items, list) and all(isinstance(item, dict) and isinstance(item.get(key), str) for item in items)


def parse_document(content: dict[str, Any], model: type[D], where: str, error: type[ConfigurationError] = ConfigurationError) -> D:
    """Return `content` as `model`; `where` names its origin in the sentence that `error` carries."""
    try:
        return model.model_validate(content)
    except ValidationError as problem:
        raise error(f"{where}: {_sentence(problem, model)}") from None


def _sentence(problem: ValidationError, model: type[BaseModel]) -> str:
    problems = problem.errors()
    # An unknown key is usually the misspelling of the one reported as missing: say that one.
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    if first["type"] == "model_type" and isinstance(first["input"], str):  # a word where a word or a document may stand
        first = next((p for p in problems if p["type"] == "literal_error" and p["loc"][:-1] == first["loc"][:-1]), first)
    where = tuple(part for part in first["loc"] if not _UNION_MEMBER.match(str(part)))
    place = ".".join(str(part) for part in where)
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, where[:-1])
        near = suggestion(str(first["loc"][-1]), known)
        return f"unknown key '{place}'{near or f', known here: {sorted(known)}'}"
    if first["type"] == "missing":
        return f"key '{place}' is missing"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if first["type"] == "value_error":
        return f"{place}: {message}" if place else message
    return f"{place}: got {first['input']!r}, expected: {message[:1].lower()}{message[1:]}"


def _known_keys(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """Return the keys that the model at `place` inside `model` knows; lists and mappings are stepped through."""
    current: Any = model
    for part in place:
        if isinstance(current, type) and issubclass(current, BaseModel) and part in current.model_fields:
            current = _document_in(current.model_fields[str(part)].annotation)
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _document_in(annotation: Any) -> Any:
    """Return the document class inside `list[X]`, `dict[str, X]`, `X | None` or X itself."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _document_in(inner)
        if found is not None:
            return found
    return None


def write_whole(path: Path, content: bytes, *, parents: bool = False) -> None:
    """Write a file whole or, whatever interrupts, not at all; with `parents` its folder is made.

    Raises ConfigurationError where it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as problem:
        raise ConfigurationError(f"{path}: cannot be written: {problem.strerror or problem}") from None
    finally:  # after Ctrl-C too
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
