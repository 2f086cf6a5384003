"""XML as a stream of elements: no entity is ever declared, expanded or fetched, nesting is bounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from xml.parsers import expat

from medcurate.errors import CaseRejected, Reason

Path = tuple[str, ...]
OnStart = Callable[[Path, Mapping[str, str]], None]
OnEnd = Callable[[Path, str], None]

_MAX_DEPTH = 64
_MAX_TEXT = 1 << 16  # characters of one element's own text


def walk(content: bytes, on_start: OnStart, on_end: OnEnd) -> None:
    """Call ``on_start(path, attributes)`` and ``on_end(path, text)`` for every element, in document order.

    ``path``: names from the root to the element, without namespace prefixes; ``text``: what stands directly in
    the element since its last child, stripped. A handler's IndexError tells that the element which should hold
    this one is not there. Raises CaseRejected: CORRUPT for what is not well-formed or out of place, UNREADABLE for
    a document that declares entities or nests deeper than 64 elements.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    state = _State(on_start, on_end)
    parser.StartElementHandler = state.start
    parser.EndElementHandler = state.end
    parser.CharacterDataHandler = state.characters
    parser.EntityDeclHandler = _refuse_entity
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise CaseRejected(
            Reason.CORRUPT, f"not well-formed XML (line {error.lineno}: {expat.errors.messages[error.code]})"
        ) from error
    except IndexError as error:  # of a handler: there is no parent to add the element to
        raise CaseRejected(
            Reason.CORRUPT, f"an XML element lies outside of its parent (line {parser.CurrentLineNumber})"
        ) from error


class _State:
    def __init__(self, on_start: OnStart, on_end: OnEnd) -> None:
        self._on_start, self._on_end = on_start, on_end
        self._path: Path = ()
        self._text: list[str] = []
        self._length = 0

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._path = (*self._path, name.rpartition(":")[2])
        if len(self._path) > _MAX_DEPTH:
            raise CaseRejected(
                Reason.UNREADABLE,
                "XML elements nest too deep",
                {"measure": len(self._path), "bound": _MAX_DEPTH},
            )
        self._text, self._length = [], 0
        self._on_start(self._path, attributes)

    def end(self, name: str) -> None:
        self._on_end(self._path, "".join(self._text).strip())
        self._path, self._text, self._length = self._path[:-1], [], 0

    def characters(self, text: str) -> None:
        self._length += len(text)
        if self._length <= _MAX_TEXT:
            self._text.append(text)


def _refuse_entity(*_: object) -> None:
    raise CaseRejected(Reason.UNREADABLE, "XML that declares entities is not read")


def number(text: str | None) -> float:
    """A coordinate. Raises CaseRejected (CORRUPT) for what is no number."""
    try:
        return float(text or "")
    except ValueError as error:
        raise CaseRejected(Reason.CORRUPT, "a coordinate is no number") from error
