"""Cores, memory and processes that this one sees: those of its job or container, where these are fewer than all."""

import hashlib
import math
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_MEMBERSHIP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
_SPACE = Path("/proc/self/ns/pid")
_ALL_PROCESSES = "pid:[4026531836]"  # of Linux: the space of process numbers outside containers


def usable_cores() -> int:
    """Cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [tuple(text.split()) for text in _group_files("cpu.max")]
    quotas += zip(_group_files("cpu.cfs_quota_us"), _group_files("cpu.cfs_period_us"), strict=False)  # first version
    shares = [math.ceil(int(quota) / int(period)) for quota, period in quotas if quota not in ("max", "-1")]
    return max(1, min([cores, *shares]))


def usable_memory() -> float:
    """Memory that this process may take, in bytes; infinite where the system does not say."""
    try:
        memory = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):
        memory = math.inf
    limits = [float(text) for text in _group_files("memory.max", "memory.limit_in_bytes") if text.isdecimal()]
    return min([memory, *limits])


def _group_files(*names: str) -> Iterator[str]:
    """Texts of files of the control groups of this process and of the groups above (Linux, both versions)."""
    with suppress(OSError):
        for line in _MEMBERSHIP.read_text("utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            root = _GROUPS / controllers  # the second version names none
            own = root / group.lstrip("/")
            for folder in (own, *own.parents):
                if folder.is_relative_to(root):
                    for name in names:
                        with suppress(OSError):
                            yield (folder / name).read_text("ascii").strip()


def process_space() -> str:
    """Name of the space in which process numbers mean something here: of this machine, or of its container.

    Machines may have one name, and so have containers that share their machine's network.
    """
    space = [platform.node(), _text(Path("/etc/machine-id"))]
    with suppress(OSError):
        if (own := str(_SPACE.readlink())) != _ALL_PROCESSES:
            space += [own, machine_start()]
    return hashlib.sha256("\n".join(space).encode()).hexdigest()[:8]


def machine_start() -> str:
    """Name of this machine's start, to tell it from an earlier one; empty where the system does not say."""
    return _text(Path("/proc/sys/kernel/random/boot_id"))


def _text(file: Path) -> str:
    try:
        return file.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
