"""Cores and memory: of a job or container, whatever its machine has."""

import os

import pytest

from he2her2.machine import process_space, usable_cores, usable_memory


@pytest.fixture
def in_groups(tmp_path, monkeypatch):
    """Say in which control groups this process is; gives a function that writes a file of one."""
    monkeypatch.setattr("he2her2.machine._MEMBERSHIP", tmp_path / "cgroup")
    monkeypatch.setattr("he2her2.machine._GROUPS", tmp_path / "groups")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)

    def write(membership, **files):
        (tmp_path / "cgroup").write_text(membership)
        for place, text in files.items():
            file = tmp_path / "groups" / place.replace("__", "/").replace("_dot_", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")

    return write


def test_a_limit_of_any_group_above_holds(in_groups):
    """The second version: a job's own group sets none, that of its pod does; half a core more is one more."""
    in_groups(
        "0::/pod/job\n", pod__memory_dot_max=3_000_000, pod__job__memory_dot_max="max", pod__cpu_dot_max="250000 100000"
    )

    assert (usable_cores(), usable_memory()) == (3, 3_000_000)


def test_a_container_sees_its_group_as_the_root(in_groups):
    """The first version, whose file names a group of the host that is not there."""
    membership = "4:memory:/docker/1a8e\n3:cpu,cpuacct:/docker/1a8e\n0::/\n"
    in_groups(membership, memory__memory_dot_limit_in_bytes=2_000_000)

    assert (usable_cores(), usable_memory()) == (64, 2_000_000)
    for quota, cores in ((350_000, 4), (-1, 64)):
        cpu = {"cpu,cpuacct__cpu_dot_cfs_quota_us": quota, "cpu,cpuacct__cpu_dot_cfs_period_us": 100_000}
        in_groups(membership, **cpu)
        assert usable_cores() == cores


@pytest.mark.parametrize("membership", ["0::/\n", ""])
def test_without_limits_it_is_the_machine(in_groups, membership):
    """Or with those that are none."""
    in_groups(membership, memory_dot_max="max", cpu_dot_max="max 100000")

    assert usable_cores() == 64
    assert usable_memory() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_containers_of_one_host_name_see_other_processes(tmp_path, monkeypatch):
    """As those that share their machine's network: each took the other's processes for dead, and its drafts away."""
    spaces = []
    for number in (4026531836, 4026532001, 4026532002):
        link = tmp_path / str(number)
        link.symlink_to(f"pid:[{number}]")
        monkeypatch.setattr("he2her2.machine._SPACE", link)
        spaces.append(process_space())
    monkeypatch.setattr("he2her2.machine._SPACE", tmp_path / "none")

    assert len(set(spaces)) == 3
    assert process_space() == spaces[0]
