"""TOML to models; every error of wording names the file, the key, the value and what is known."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from medcurate.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)
Location = tuple[int | str, ...]
Schema = Mapping[str, Any]  # a JSON schema, or a part of one

_SHOWN_CHARACTERS = 80  # of a value that is quoted in a message


class Strict(BaseModel):
    """Immutable; accepts no key that is not declared, no number that is not finite, and no value of another type.

    A whole number is a number; a list is a tuple. Text is neither a number nor a truth value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        tables = {name for name, field in cls.model_fields.items() if _is_table(field.annotation)}
        return {
            key: {name: _frozen(entry) for name, entry in part.items()}
            if key in tables and isinstance(part, Mapping)
            else _frozen(part)
            for key, part in value.items()
        }


def _is_table(annotation: Any) -> bool:
    """Whether the keys of a table are free and its values of one declared type."""
    return get_origin(annotation) is dict and Any not in get_args(annotation)


def _frozen(value: Any) -> Any:
    """``value`` with tuples for its lists; what is inside tables is left to the models that they become."""
    return tuple(_frozen(part) for part in value) if isinstance(value, list) else value


def load_model(path: Path, model: type[Model]) -> Model:
    """Read ``path`` as ``model``. Raises ConfigError."""
    return check_model(load_table(path), model, str(path))


def load_table(path: Path) -> dict[str, Any]:
    """The values of the TOML file ``path``. Raises ConfigError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows editors begin with a mark
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 from byte {error.start} on; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def check_model(value: Any, model: type[Model], where: str) -> Model:
    """Validate ``value`` as ``model``; ``where`` starts every line of the ConfigError."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        schema = model.model_json_schema()
        lines = [f"{where}: {_line(detail, schema)}" for detail in _causes(error.errors())]
        raise ConfigError("\n".join(lines)) from error


def _causes(details: Sequence[ErrorDetails]) -> Iterator[ErrorDetails]:
    """``details`` without those that only follow from others: a list is too short once its entries are bad."""
    for detail in details:
        at = detail["loc"]
        inside = (other["loc"] for other in details if len(other["loc"]) > len(at))
        if detail["type"] != "too_short" or not any(place[: len(at)] == at for place in inside):
            yield detail


def _line(detail: ErrorDetails, schema: Schema) -> str:
    key = _dotted(_written(detail["loc"], schema))
    match detail["type"]:
        case "extra_forbidden":
            known = sorted(_node(detail["loc"][:-1], schema).get("properties", {}))
            near = difflib.get_close_matches(str(detail["loc"][-1]), known, 1)
            hint = f' (did you mean "{near[0]}"?)' if near else ""
            return f"{key}: unknown key{hint}; known: {', '.join(known)}"
        case "missing":
            return f"{key}: required key is missing"
        case "union_tag_invalid":
            name, known = _discriminator(detail["loc"], schema)
            tag = detail["ctx"]["tag"]
            return f'{key}.{name}: "{tag}" is not a {name}; known: {", ".join(known)}'
        case "union_tag_not_found":
            name, known = _discriminator(detail["loc"], schema)
            return f"{key}.{name}: required key is missing; known: {', '.join(known)}"
        case "literal_error":
            return f"{key}: {_shown(detail['input'])} is not one of: {_choices(detail['ctx']['expected'])}"
        case "string_pattern_mismatch":
            words = _words(schema, detail["ctx"]["pattern"])
            return f"{key}: {_shown(detail['input'])} is not of the form: {words}"
    worded = SENTENCES.get(detail["type"], _plain(detail["msg"]))
    sentence = worded(detail.get("ctx", {}))
    given = "" if isinstance(detail["input"], dict) else f"; given: {_shown(detail['input'])}"
    return f"{key}: {sentence}{given}" if key else sentence


def _plain(sentence: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda context: sentence


def _bound(words: str, name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda context: f"{words} {context[name]:.15g}"


def _at_least(context: Mapping[str, Any]) -> str:
    count = context["min_length"]
    return "name at least one" if count == 1 else f"give at least {count} values"


# By pydantic's type of the error: what the models of medcurate can raise besides what ``_line`` words itself.
SENTENCES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "value_error": lambda context: str(context["error"]),
    "too_short": _at_least,
    "too_long": lambda context: f"give at most {context['max_length']} values",
    "string_too_short": _plain("must not be empty"),
    "greater_than": _bound("must be above", "gt"),
    "greater_than_equal": _bound("must be at least", "ge"),
    "less_than": _bound("must be below", "lt"),
    "less_than_equal": _bound("must be at most", "le"),
    "multiple_of": _bound("must be a multiple of", "multiple_of"),
    "finite_number": _plain("must be a finite number"),
    "string_type": _plain("must be text in quotes"),
    "int_type": _plain("must be a whole number"),
    "int_parsing_size": _plain("must be a whole number"),
    "float_type": _plain("must be a number"),
    "bool_type": _plain("must be true or false"),
    "tuple_type": _plain("must be a list in brackets"),
    "dict_type": _plain("must be a table"),
    "model_type": _plain("must be a table"),
    "model_attributes_type": _plain("must be a table"),
}


def _shown(value: Any) -> str:
    """``value`` about as TOML writes it, cut where it is long."""
    text = str(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _choices(expected: str) -> str:
    """Pydantic's "'x', 'y' or 'z'" as "x, y, z"; an empty text as two quotes."""
    quoted = re.findall(r"'([^']*)'", expected)
    return ", ".join(text or '""' for text in quoted) or expected.replace(" or ", ", ")


def _words(schema: Any, pattern: str) -> str:
    """What ``pattern`` means: the description that stands beside it in the model; itself where none does."""
    if isinstance(schema, dict) and schema.get("pattern") == pattern and "description" in schema:
        return str(schema["description"])
    inside = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    return next((words for part in inside if (words := _words(part, pattern)) != pattern), pattern)


def _dotted(location: Sequence[int | str]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _written(location: Location, schema: Schema) -> list[int | str]:
    """``location`` as the file has it: pydantic puts the rule of a union between the key and what it holds."""
    return [part for at, part in enumerate(location) if part not in _mapping(_node(location[:at], schema))]


def _discriminator(location: Location, schema: Schema) -> tuple[str, list[str]]:
    """The key that tells the members of a union apart, and its values."""
    node = _node(location, schema)
    return node["discriminator"]["propertyName"], sorted(_mapping(node))


def _mapping(node: Schema) -> Mapping[str, str]:
    mapping: Mapping[str, str] = node.get("discriminator", {}).get("mapping", {})
    return mapping


def _node(location: Location, schema: Schema) -> Schema:
    """The part of ``schema`` for ``location`` (unions are walked by rule name)."""
    node = _resolve(schema, schema)
    for part in location:
        node = _resolve(schema, _child(node, part))
    return node


def _child(node: Schema, part: int | str) -> Schema:
    if isinstance(part, int):
        items: Schema = node.get("items", {})
        return items
    if part in node.get("properties", {}):
        found: Schema = node["properties"][part]
        return found
    if part in _mapping(node):
        return {"$ref": _mapping(node)[part]}
    extra = node.get("additionalProperties", {})
    return extra if isinstance(extra, dict) else {}


def _resolve(schema: Schema, node: Schema) -> Schema:
    """``node`` behind its references; of a value that may be absent, what it is where it is given."""
    while "$ref" in node or "anyOf" in node:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
        else:
            node = next(option for option in node["anyOf"] if option.get("type") != "null")
    return node
