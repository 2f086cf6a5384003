"""The state of a work in words for people and in JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class State:
    """What there is to tell at one moment; ``rate`` in units per second.

    ``note``: more about the work, for people; ``figures``: the same for machines.
    """

    title: str
    unit: str
    done: int
    total: int | None
    rate: float | None
    eta_s: float | None
    note: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


def json_line(state: State) -> str:
    """``state`` as one JSON object; an unknown total, rate or eta_s is null."""
    fields = {
        "event": "progress",
        "title": state.title,
        "done": state.done,
        "total": state.total,
        "unit": state.unit,
        "rate": None if state.rate is None else round(state.rate, 3),
        "eta_s": None if state.eta_s is None else round(state.eta_s, 1),
        **state.figures,
    }
    return json.dumps(fields, ensure_ascii=False)


def plain_line(state: State) -> str:
    """``state`` for people: ``title: 120/400 cases (30 %), 2.4 cases/s, 1 min 57 s left``."""
    note = f", {state.note}" if state.note else ""
    return f"{state.title}: {figures(state)}{note}"


def figures(state: State) -> str:
    """The numbers of ``plain_line``."""
    if state.total is None:
        parts = [amount_text(state.done, state.unit)]
    else:
        of_total = _of_total(state.done, state.total, state.unit)
        parts = [f"{of_total} ({100 * state.done // state.total} %)" if state.total else of_total]
    if state.rate is not None:
        parts.append(f"{amount_text(state.rate, state.unit)}/s")
    if state.eta_s:
        parts.append(f"{duration_text(state.eta_s)} left")
    return ", ".join(parts)


def amount_text(amount: float, unit: str) -> str:
    """``amount`` with its unit; bytes ("B") in decimal multiples."""
    if unit == "B":
        for prefix in ("", "k", "M", "G", "T"):
            if amount < 1000 or prefix == "T":
                break
            amount /= 1000
        return f"{amount:.1f} {prefix}B" if prefix else f"{amount:.0f} B"
    return f"{amount:,.0f} {unit}" if amount >= 10 or amount == int(amount) else f"{amount:.2g} {unit}"


def duration_text(seconds: float) -> str:
    """``seconds`` in its two largest parts: 45 s, 2 min 10 s, 1 h 05 min, 3 d 4 h."""
    whole = round(seconds)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    if hours:
        return f"{hours} h {minute:02d} min"
    return f"{minutes} min {second:02d} s" if minutes else f"{second} s"


def _of_total(done: int, total: int, unit: str) -> str:
    if unit == "B":
        return f"{amount_text(done, unit)} of {amount_text(total, unit)}"
    return f"{done:,}/{total:,} {unit}"
