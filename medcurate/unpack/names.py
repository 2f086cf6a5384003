"""Names of members: which are safe, which are data, and what they are called on disk.

A member's name is made of components between "/". Refused are names that lead or could lead elsewhere: "..",
absolute ones, drive letters, backslashes, NUL. What no file system or table can hold is escaped, the same way
everywhere: bytes that are no UTF-8 and control characters as %XX, components too long for a file system by
their beginning, a digest of the whole and their endings.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from medcurate.config.patterns import matches as patterns_match

NAME_BYTES = 255  # of one component on every usual file system
MOST_COMPONENTS = 64
_ENDINGS_BYTES = 32
_DIGEST_DIGITS = 16
_HIDDEN_FOLDERS = frozenset({"__MACOSX"})
_UNHOLDABLE = re.compile("[\x01-\x1f\x7f\udc80-\udcff]")
_DRIVE = re.compile(r"[A-Za-z]:")
_ENDINGS = re.compile(r"(?:\.[A-Za-z0-9]{1,8}){1,3}$")


class UnsafeName(Exception):
    """A name that could lead out of the folder; the text says why."""


def text(raw: bytes) -> str:
    """A stored name; bytes that are not UTF-8 stay as surrogates until ``components`` escapes them."""
    return raw.decode("utf-8", "surrogateescape")


def zip_text(raw: bytes, *, utf8: bool) -> str:
    """A zip's name: UTF-8 where it says so or where it is; else code page 437 (APPNOTE D.1)."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return text(raw) if utf8 else raw.decode("cp437")


def components(name: str) -> tuple[str, ...]:
    """The components of a safe name, escaped, none of them "" or "."; () for the folder itself.

    Raises UnsafeName.
    """
    if "\0" in name:
        raise UnsafeName("a NUL in its name")
    if "\\" in name:
        raise UnsafeName("a backslash in its name")
    if name.startswith("/"):
        raise UnsafeName("an absolute name")
    parts = tuple(part for part in name.split("/") if part not in {"", "."})
    if ".." in parts:
        raise UnsafeName("'..' in its name")
    if parts and _DRIVE.match(parts[0]):
        raise UnsafeName("a drive letter in its name")
    if len(parts) > MOST_COMPONENTS:
        raise UnsafeName(f"more than {MOST_COMPONENTS} folders in its name")
    return tuple(_holdable(part) for part in parts)


def hidden(parts: Sequence[str]) -> bool:
    """Whether a member is no data: below a dot file or folder, an AppleDouble twin, or their folder."""
    return any(part.startswith(".") or part in _HIDDEN_FOLDERS for part in parts)


def matches(patterns: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether any of ``patterns`` explains the name; ``*`` inside a name, ``**`` for any folders."""
    return patterns_match(patterns, "/".join(parts))


def _holdable(part: str) -> str:
    escaped = _UNHOLDABLE.sub(lambda found: f"%{ord(found[0]) & 0xFF:02X}", part)
    raw = escaped.encode("utf-8")
    if len(raw) <= NAME_BYTES:
        return escaped
    found = _ENDINGS.search(escaped)
    endings = found[0] if found and len(found[0]) <= _ENDINGS_BYTES else ""
    digest = hashlib.sha256(raw).hexdigest()[:_DIGEST_DIGITS]
    room = NAME_BYTES - len(endings) - _DIGEST_DIGITS - 1
    return f"{raw[:room].decode('utf-8', 'ignore')}~{digest}{endings}"
