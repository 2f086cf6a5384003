"""CPUs and memory as containers and batch systems grant them, from the files that they write."""

from __future__ import annotations

import os

import pytest

from medcurate.engines import allotted

V2 = "0::/job.slice/step\n"
V1 = "9:memory:/job/step\n4:cpu,cpuacct:/job/step\n1:name=systemd:/\n"
UNLIMITED_V1 = 9223372036854771712  # what the kernel shows for "none"


def tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        (V2, {"job.slice/step/cpu.max": "150000 100000"}, 1.5),
        (V2, {"job.slice/step/cpu.max": "max 100000"}, None),
        (V2, {"job.slice/step/cpu.max": "max 100000", "job.slice/cpu.max": "200000 100000"}, 2.0),
        (V2, {"job.slice/step/cpu.max": "400000 100000", "job.slice/cpu.max": "50000 100000"}, 0.5),
        ("0::/\n", {"cpu.max": "300000 100000"}, 3.0),  # inside a container's own name space
        ("0::/not/visible/here\n", {"cpu.max": "300000 100000"}, 3.0),
        (V2, {}, None),
        ("", {"cpu.max": "300000 100000"}, None),
        (
            V1,
            {
                "cpu,cpuacct/job/step/cpu.cfs_quota_us": "250000",
                "cpu,cpuacct/job/step/cpu.cfs_period_us": "100000",
            },
            2.5,
        ),
        (V1, {"cpu/job/cpu.cfs_quota_us": "100000", "cpu/job/cpu.cfs_period_us": "50000"}, 2.0),
        (V1, {"cpu/job/step/cpu.cfs_quota_us": "-1", "cpu/job/step/cpu.cfs_period_us": "100000"}, None),
        (f"{V1}0::/\n", {"unified/cpu.max": "100000 100000"}, 1.0),
    ],
)
def test_cpu_quota(tmp_path, own, files, quota):
    assert allotted.cpu_quota(own, tree(tmp_path, files)) == quota


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        (V2, {"job.slice/step/memory.max": "max", "job.slice/memory.max": "8000000000"}, 8_000_000_000),
        (V2, {"job.slice/step/memory.max": "max"}, None),
        (V1, {"memory/job/step/memory.limit_in_bytes": "4096000"}, 4_096_000),
        (V1, {"memory/memory.limit_in_bytes": str(UNLIMITED_V1)}, UNLIMITED_V1),
    ],
)
def test_memory_limit(tmp_path, own, files, limit):
    assert allotted.memory_limit(own, tree(tmp_path, files)) == limit


@pytest.mark.parametrize(("value", "cpus"), [("4", 4), ("", None), ("0", None), ("four", None), ("²", None)])
def test_slurm_cpus(value, cpus):
    assert allotted.slurm_cpus(value) == cpus


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of 64 CPUs; gives a function that sets what restricts the process."""
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr(allotted, "_CGROUPS", tmp_path)
    monkeypatch.setattr(allotted, "_OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(allotted, "_affinity", lambda: 64)

    def restrict(*, quota=None, slurm=None, affinity=None, memory=None):
        tree(tmp_path, {"own": V2.strip(), "cpu.max": quota or "max 100000", "memory.max": memory or "max"})
        if slurm:
            monkeypatch.setenv("SLURM_CPUS_PER_TASK", slurm)
        if affinity:
            monkeypatch.setattr(allotted, "_affinity", lambda: affinity)

    return restrict


@pytest.mark.parametrize(
    ("restrictions", "cpus"),
    [
        ({}, 64),
        ({"quota": "150000 100000"}, 2),
        ({"quota": "1000 100000"}, 1),
        ({"slurm": "8"}, 8),
        ({"slurm": "8", "affinity": 4}, 4),
        ({"slurm": "8", "quota": "300000 100000"}, 3),
        ({"slurm": "128"}, 64),
    ],
)
def test_the_least_of_all_bounds_counts(machine, restrictions, cpus):
    machine(**restrictions)
    assert allotted.allotted_cpus() == cpus


def test_affinity_counts(monkeypatch):
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert allotted.allotted_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_memory_is_the_machines_or_less(machine):
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    machine()
    assert allotted.allotted_memory_bytes() == physical
    machine(memory="1000000")
    assert allotted.allotted_memory_bytes() == 1_000_000
    machine(memory=str(UNLIMITED_V1))
    assert allotted.allotted_memory_bytes() == physical


def test_without_cgroups(machine):
    assert allotted.allotted_cpus() == 64  # no /proc/self/cgroup at all
