"""TOML to models; every error of wording names the file, the key, the value and what is known."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from medcurate.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def load_model(path: Path, model: type[Model]) -> Model:
    """Read ``path`` as ``model``. Raises ConfigError."""
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: not readable TOML: {error}") from error
    return check_model(value, model, str(path))


def check_model(value: Any, model: type[Model], where: str) -> Model:
    """Validate ``value`` as ``model``; ``where`` starts every line of the ConfigError."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        lines = [f"{where}: {_line(detail, model)}" for detail in error.errors()]
        raise ConfigError("\n".join(lines)) from error


def _line(detail: ErrorDetails, model: type[BaseModel]) -> str:
    key = _dotted(detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = _known_keys(model, detail["loc"][:-1])
        near = difflib.get_close_matches(str(detail["loc"][-1]), known, 1)
        hint = f' (did you mean "{near[0]}"?)' if near else ""
        return f"{key}: unknown key{hint}; known: {', '.join(known)}"
    if detail["type"] == "missing":
        return f"{key}: required key is missing"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{key}: {message}; given: {detail['input']!r}" if key else message


def _dotted(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys allowed at ``location``, found by walking the JSON schema (unions are walked by rule name)."""
    schema = model.model_json_schema()
    node: dict[str, Any] = schema
    for part in location:
        node = _child(_resolve(schema, node), part)
    return sorted(_resolve(schema, node).get("properties", {}))


def _child(node: dict[str, Any], part: int | str) -> dict[str, Any]:
    if isinstance(part, int):
        child: dict[str, Any] = node.get("items", {})
        return child
    if part in node.get("properties", {}):
        found: dict[str, Any] = node["properties"][part]
        return found
    mapping = node.get("discriminator", {}).get("mapping", {})
    if part in mapping:
        return {"$ref": mapping[part]}
    extra = node.get("additionalProperties", {})
    return extra if isinstance(extra, dict) else {}


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return node
