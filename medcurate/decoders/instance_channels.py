"""Every channel is a class, every value in it one object (PanNuke)."""

from __future__ import annotations

from collections.abc import Mapping

from medcurate.config.source import Strict
from medcurate.decoders.instance_parts import channels, ids
from medcurate.errors import CaseRejected, Reason
from medcurate.types import LabelFiles, LabelLayer

OBJECTS = True  # values number objects


class Options(Strict):
    """``ignore``: channels that are no class."""

    ignore: tuple[int, ...] = ()


def check(labels: Mapping[str, str]) -> None:
    """Raise ValueError unless every key is the number of a channel, from 0."""
    for key in labels:
        if not (key.isascii() and key.isdigit() and str(int(key)) == key):
            raise ValueError(f'"{key}" is no number of a channel; the first is "0"')


def decode(files: LabelFiles, labels: Mapping[str, str], options: Options) -> tuple[LabelLayer, ...]:
    """One layer a file and channel; classes may overlap. Raises CaseRejected (BAD_LABEL)."""
    declared = {*(int(key) for key in labels), *options.ignore}
    layers = []
    for _, volume in files:
        found = channels(volume)
        if declared != set(range(len(found))):
            raise CaseRejected(
                Reason.BAD_LABEL,
                f"{len(found)} channels, and the source declares {', '.join(map(str, sorted(declared)))}",
                {"measure": len(found), "bound": len(declared)},
            )
        layers += [
            LabelLayer(labels=ids(found[int(key)]), terms={0: term}, instances=True)
            for key, term in labels.items()
        ]
    return tuple(layers)
