"""CPUs and memory that this process may really use: a container or a batch job rarely owns the machine."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def allotted_cpus() -> int:
    """CPUs to keep busy, at least 1: the least of affinity, cgroup quota (rounded up) and Slurm's share."""
    own = _OWN_CGROUPS.read_text() if _OWN_CGROUPS.exists() else ""
    bounds = [_affinity()]
    if (quota := cpu_quota(own, _CGROUPS)) is not None:
        bounds.append(math.ceil(quota))
    if (share := slurm_cpus(os.environ.get("SLURM_CPUS_PER_TASK", ""))) is not None:
        bounds.append(share)
    return max(1, min(bounds))


def allotted_memory_bytes() -> int:
    """Physical memory, or the cgroup's limit where that is less."""
    own = _OWN_CGROUPS.read_text() if _OWN_CGROUPS.exists() else ""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = memory_limit(own, _CGROUPS)
    return physical if limit is None else min(physical, limit)


def cpu_quota(own_cgroups: str, root: Path) -> float | None:
    """CPUs' worth of time that the cgroups grant; None without a limit.

    ``own_cgroups``: the text of /proc/self/cgroup; ``root``: where cgroup file systems are mounted. A limit
    of any enclosing group binds, so all of them are read: ``cpu.max`` ("quota period" or "max period", in
    microseconds) of version 2, ``cpu.cfs_quota_us`` (-1: none) and ``cpu.cfs_period_us`` of version 1.
    """
    quotas = []
    for folder in _folders(own_cgroups, "cpu", root):
        words = _words(folder / "cpu.max") or [
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]
        if len(words) == 2 and words[0] not in {"max", "-1"}:
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def memory_limit(own_cgroups: str, root: Path) -> int | None:
    """Bytes that the cgroups grant; None without a limit. Arguments as for ``cpu_quota``.

    ``memory.max`` of version 2; ``memory.limit_in_bytes`` of version 1, where "none" is a number beyond
    any memory.
    """
    limits = []
    for folder in _folders(own_cgroups, "memory", root):
        words = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
        if words and words[0] != "max":
            limits.append(int(words[0]))
    return min(limits, default=None)


def slurm_cpus(value: str) -> int | None:
    """SLURM_CPUS_PER_TASK as a number; None where it is unset or not one."""
    return int(value) if value.isascii() and value.isdigit() and int(value) > 0 else None


def _affinity() -> int:
    count = getattr(os, "process_cpu_count", None)  # Python 3.13; also respects -X cpu_count
    return (count() if count else None) or len(os.sched_getaffinity(0))


def _folders(own_cgroups: str, controller: str, root: Path) -> Iterator[Path]:
    """The process's cgroup folders for ``controller`` and all that enclose them, innermost first.

    Lines of /proc/self/cgroup are "id:controllers:path" (cgroups(7)); version 2 has the id 0 and no
    controllers. In a container the path may be the host's and not exist here; the enclosing root does.
    """
    for line in own_cgroups.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            mount = root / "unified" if (root / "unified").is_dir() else root
        elif controller in controllers.split(","):
            mount = root / controllers if (root / controllers).is_dir() else root / controller
        else:
            continue
        folder = mount / path.lstrip("/")
        yield folder
        yield from (parent for parent in folder.parents if parent.is_relative_to(mount))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
