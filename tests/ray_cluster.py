"""``python tests/ray_cluster.py COMMAND ...``: run a command beside a Ray cluster of two machines with a CPU each.

Ray listens on the machine's first address and cannot be told to listen on loopback only; so command and cluster get a
network of their own (Linux namespaces, as root or where users may have them), whose first address is loopback.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x1000_0000, 0x4000_0000  # <linux/sched.h>
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # <linux/sockios.h>, <linux/if.h>
NO_NETWORK = 77
MACHINE = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}


def leave_network() -> None:
    """Move this process to a network of its own and bring its loopback up. Raises OSError."""
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET | (CLONE_NEWUSER if user else 0)) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if user:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


@contextlib.contextmanager
def cluster() -> Iterator[None]:
    """A cluster that RAY_ADDRESS names; it leaves nothing behind, nor the address of another that somebody has here."""
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(
        prefix="ray-", dir="/tmp"
    ) as folder:  # sockets lie in it: no long name will do
        os.environ["RAY_TMPDIR"] = folder
        (Path(folder) / "ray").mkdir()
        machines = Cluster(initialize_head=True, head_node_args=MACHINE)
        machines.add_node(**MACHINE)
        os.environ["RAY_ADDRESS"] = machines.address
        try:
            yield
        finally:
            machines.shutdown()


def main(command: list[str]) -> int:
    """Exit status of ``command``, or NO_NETWORK."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0"}
    try:
        leave_network()
    except OSError as error:
        print(f"no network of its own: {error}", file=sys.stderr)  # noqa: T201
        return NO_NETWORK
    with cluster():
        return subprocess.call(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
