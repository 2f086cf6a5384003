"""What a running command tells, on stderr: a bar on a terminal, lines elsewhere, JSON lines for machines."""

from medcurate.progress.meter import HORIZON_SECONDS, Meter
from medcurate.progress.telling import LogFormat, Progress, configure, emit, progress
from medcurate.progress.text import State, amount_text, duration_text, json_line, plain_line

__all__ = [
    "HORIZON_SECONDS",
    "LogFormat",
    "Meter",
    "Progress",
    "State",
    "amount_text",
    "configure",
    "duration_text",
    "emit",
    "json_line",
    "plain_line",
    "progress",
]
