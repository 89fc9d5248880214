"""YAML documents read through pydantic models that refuse unknown keys and answer with one sentence."""

from __future__ import annotations

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
    return parse_document(content, model, str(path), error)


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
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, first["loc"][:-1])
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
