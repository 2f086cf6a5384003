"""Regular expressions as automata, so that strings which fit two of them at once can be drawn.

A case's name must fit what the pairing makes of paths and what the source's ``case.pattern`` finds in it.
Drawing from one and testing with the other finds nothing where both say much; their product finds all.
What an automaton cannot say (looking around, back references) is passed over here and tested by ``re`` later.
"""

from __future__ import annotations

import random
import re
import string
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from re import _constants as op
from re import _parser as parser
from typing import Any

Chars = frozenset[str]

_DIGITS, _LETTERS = frozenset(string.digits), frozenset("abcdefkmABCDEFKM")
_CATEGORIES = {
    op.CATEGORY_DIGIT: lambda letter: letter.isdigit(),
    op.CATEGORY_NOT_DIGIT: lambda letter: not letter.isdigit(),
    op.CATEGORY_SPACE: lambda letter: letter.isspace(),
    op.CATEGORY_NOT_SPACE: lambda letter: not letter.isspace(),
    op.CATEGORY_WORD: lambda letter: letter.isalnum() or letter == "_",
    op.CATEGORY_NOT_WORD: lambda letter: not (letter.isalnum() or letter == "_"),
}


@dataclass(slots=True)
class Automaton:
    """States are numbers; 0 is the first. ``steps[state]``: (letters, next); None: no letter is taken."""

    steps: list[list[tuple[Chars | None, int]]] = field(default_factory=lambda: [[]])
    end: int = 0

    def state(self) -> int:
        self.steps.append([])
        return len(self.steps) - 1

    def closure(self, state: int) -> frozenset[int]:
        """All states that are reached from ``state`` without a letter, itself included."""
        seen, waiting = {state}, [state]
        while waiting:
            for letters, after in self.steps[waiting.pop()]:
                if letters is None and after not in seen:
                    seen.add(after)
                    waiting.append(after)
        return frozenset(seen)


def alphabet(*patterns: str) -> Chars:
    """A few digits and letters, and every letter that a pattern names."""
    named = {letter for pattern in patterns for letter in _named(parser.parse(pattern))}
    return frozenset(_DIGITS | _LETTERS | {letter for letter in named if letter.isprintable()})


def _named(node: Any) -> Iterator[str]:
    if isinstance(node, tuple) and len(node) == 2 and node[0] in {op.LITERAL, op.NOT_LITERAL}:
        yield chr(node[1])
    elif isinstance(node, tuple) and len(node) == 2 and node[0] == op.RANGE:
        yield from map(chr, node[1])
    elif isinstance(node, list | tuple | parser.SubPattern):
        for part in node:
            yield from _named(part)


def automaton(pattern: str, letters: Chars, fixed: Mapping[str, str] | None = None) -> Automaton:
    """``pattern`` over ``letters``; the named groups of ``fixed`` stand for those very texts."""
    parsed = parser.parse(pattern)
    numbers = {parsed.state.groupdict[name]: text for name, text in (fixed or {}).items()}
    made = _Compiler(letters, numbers)
    made.automaton.end = made.sequence(parsed, 0)
    return made.automaton


@dataclass(slots=True)
class _Compiler:
    letters: Chars
    fixed: Mapping[int, str]
    automaton: Automaton = field(default_factory=Automaton)

    def sequence(self, parts: Any, state: int) -> int:
        for kind, value in parts:
            state = self.part(kind, value, state)
        return state

    def part(self, kind: Any, value: Any, state: int) -> int:
        if kind in {op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN}:
            return self.letter(self.taken(kind, value), state)
        if kind == op.SUBPATTERN:
            number, _, _, inside = value
            if number in self.fixed:
                return self.text(self.fixed[number], state)
            return self.sequence(inside, state)
        if kind == op.BRANCH:
            return self.joined([self.sequence(option, self.after(state)) for option in value[1]])
        if kind in {op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT}:
            return self.repeated(*value, state)
        if kind == op.ATOMIC_GROUP:
            return self.sequence(value, state)
        if kind == op.GROUPREF:  # any text here; ``re`` decides later
            return self.repeated(1, op.MAXREPEAT, [(op.ANY, None)], state)
        return state  # looks around and anchors take no letter

    def taken(self, kind: Any, value: Any) -> Chars:
        if kind == op.ANY:
            return self.letters
        if kind in {op.LITERAL, op.NOT_LITERAL}:
            one = frozenset(chr(value))
            return one if kind == op.LITERAL else self.letters - one
        inside = {letter for letter in self.letters if any(_holds(item, letter) for item in value)}
        return frozenset(self.letters - inside if value[0][0] == op.NEGATE else inside)

    def after(self, state: int) -> int:
        """A new state that ``state`` leads to without a letter."""
        new = self.automaton.state()
        self.automaton.steps[state].append((None, new))
        return new

    def letter(self, letters: Chars, state: int) -> int:
        new = self.automaton.state()
        self.automaton.steps[state].append((letters, new))
        return new

    def text(self, text: str, state: int) -> int:
        for letter in text:
            state = self.letter(frozenset(letter), state)
        return state

    def joined(self, ends: list[int]) -> int:
        new = self.automaton.state()
        for end in ends:
            self.automaton.steps[end].append((None, new))
        return new

    def repeated(self, least: int, most: int, inside: Any, state: int) -> int:
        for _ in range(least):
            state = self.sequence(inside, state)
        if most is op.MAXREPEAT:
            start = self.after(state)
            self.automaton.steps[self.sequence(inside, start)].append((None, start))
            return self.after(start)
        ends = [state]
        for _ in range(most - least):
            state = self.sequence(inside, state)
            ends.append(state)
        return self.joined(ends)


def _holds(item: tuple[Any, Any], letter: str) -> bool:
    kind, value = item
    if kind == op.LITERAL:
        return chr(value) == letter
    if kind == op.RANGE:
        return value[0] <= ord(letter) <= value[1]
    return kind == op.CATEGORY and _CATEGORIES[value](letter)


@dataclass(slots=True)
class Product:
    """The strings that fit two automata at once, as a graph of pairs of states with letters between."""

    edges: dict[tuple[int, int], list[tuple[Chars, tuple[int, int]]]] = field(default_factory=dict)
    left: dict[tuple[int, int], int] = field(default_factory=dict)  # letters to the nearest end; absent: none

    @property
    def empty(self) -> bool:
        return (0, 0) not in self.left

    def draw(self, rng: random.Random, soft_length: int = 14) -> str:
        """One string; beyond ``soft_length`` letters by the shortest way to an end."""
        at, text = (0, 0), ""
        while True:
            if self.left[at] == 0 and (len(text) >= soft_length or rng.random() < 0.5):
                return text
            ways = [way for way in self.edges[at] if way[1] in self.left]
            if not ways:
                return text
            if len(text) >= soft_length or rng.random() < 0.5:
                nearest = min(self.left[after] for _, after in ways)
                ways = [way for way in ways if self.left[way[1]] == nearest]
            letters, at = rng.choice(ways)
            text += rng.choice(_plain(letters))


def _plain(letters: Chars) -> list[str]:
    """Digits where they are offered, else letters, else what there is; sorted, so that draws repeat."""
    return sorted(letters & _DIGITS or letters & _LETTERS or letters)


def product(one: Automaton, other: Automaton) -> Product:
    """What both accept."""
    made = Product()
    ends, waiting = [], deque([(0, 0)])
    backwards: dict[tuple[int, int], list[tuple[int, int]]] = {(0, 0): []}
    while waiting:
        at = waiting.popleft()
        made.edges[at] = []
        lefts, rights = one.closure(at[0]), other.closure(at[1])
        if one.end in lefts and other.end in rights:
            ends.append(at)
        for letters, after in _common(one, lefts, other, rights):
            made.edges[at].append((letters, after))
            if after not in backwards:
                backwards[after] = []
                waiting.append(after)
            backwards[after].append(at)
    made.left = dict.fromkeys(ends, 0)
    queue = deque(ends)
    while queue:
        at = queue.popleft()
        for before in backwards[at]:
            if before not in made.left:
                made.left[before] = made.left[at] + 1
                queue.append(before)
    return made


def _common(
    one: Automaton, lefts: frozenset[int], other: Automaton, rights: frozenset[int]
) -> Iterator[tuple[Chars, tuple[int, int]]]:
    for left in sorted(lefts):
        for right in sorted(rights):
            for letters, after in one.steps[left]:
                for others, following in other.steps[right]:
                    if letters and others and letters & others:
                        yield letters & others, (after, following)


def _unflagged(pattern: str) -> str:
    """``pattern`` without flags of the whole expression, which may stand at its start only."""
    return re.sub(r"^\(\?[a-zA-Z]+\)", "", pattern)


def _around(selected: str) -> str:
    """``selected`` with what may stand around it, as its anchors allow."""
    before = "" if selected.startswith("^") else ".*"
    after = "" if selected.endswith("$") else ".*"
    return f"{before}(?:{_unflagged(selected)}){after}"


def meet(one: Automaton, other: Automaton) -> Automaton:
    """The automaton of what both accept."""
    both = product(one, other)
    made = Automaton()
    numbers = {at: 0 if at == (0, 0) else made.state() for at in both.edges}
    made.end = made.state()
    for at, edges in both.edges.items():
        made.steps[numbers[at]] += [(letters, numbers[after]) for letters, after in edges]
        if both.left.get(at) == 0:
            made.steps[numbers[at]].append((None, made.end))
    return made


def drawn(
    structure: str,
    searched: str,
    seed: int,
    fixed: Mapping[str, str] | None = None,
    selected: str = "",
) -> Iterator[str]:
    """Strings that fit ``structure`` wholly and in which searches of ``searched`` and ``selected`` find something.

    As little as possible stands around what ``searched`` speaks of. Repeats by seed; ends where nothing
    more is found. ``fixed``: texts of named groups of ``searched``.
    """
    letters = alphabet(structure, searched, selected) | set("".join((fixed or {}).values()))
    shape = automaton(structure, letters)
    if selected:
        shape = meet(shape, automaton(_around(selected), letters))
    for around in ("{}", "{}.*", ".*{}", ".*{}.*"):
        pattern = around.format(f"(?:{_unflagged(searched)})")
        both = product(shape, automaton(pattern, letters, fixed))
        if both.empty:
            continue
        rng, missed, seen = random.Random(seed), 0, set[str]()
        while missed < 200:
            text = both.draw(rng)
            fits = re.fullmatch(structure, text) and re.search(searched, text) and re.search(selected, text)
            if fits and text not in seen:
                seen.add(text)
                yield text
            else:
                missed += 1
        if seen:
            return
