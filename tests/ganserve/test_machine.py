"""What control groups of both versions allow, from copies of their files."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ganserve import machine

GIB = 1 << 30


def tree(root: Path, **files: str) -> Path:
    """Files by path, with ``__`` for a slash and ``_DOT_`` for a dot."""
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def test_without_control_groups_the_affinity_and_the_machines_memory_count(tmp_path: Path) -> None:
    tree(tmp_path, proc__meminfo="MemTotal:        2097152 kB\nMemFree: 5 kB\n")
    assert (machine.cores(tmp_path), machine.quota(tmp_path)) == (8, math.inf)
    assert machine.memory(tmp_path) == 2 * GIB
    assert machine.memory(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8)]
)
def test_a_quota_of_version_2_counts_in_whole_cores_and_at_least_one(tmp_path: Path, quota: str, cores: int) -> None:
    tree(tmp_path, proc__self__cgroup="0::/\n", sys__fs__cgroup__cpu_DOT_max=quota + "\n")
    assert machine.cores(tmp_path) == cores


def test_the_limits_of_the_groups_above_hold_as_well(tmp_path: Path) -> None:
    tree(
        tmp_path,
        proc__meminfo="MemTotal: 67108864 kB\n",
        proc__self__cgroup="0::/pod/box\n",
        sys__fs__cgroup__pod__cpu_DOT_max="300000 100000\n",
        sys__fs__cgroup__pod__memory_DOT_max=str(4 * GIB),
        sys__fs__cgroup__pod__box__cpu_DOT_max="max 100000\n",
        sys__fs__cgroup__pod__box__memory_DOT_max="max\n",
    )
    assert machine.cores(tmp_path) == 3
    assert machine.memory(tmp_path) == 4 * GIB


def test_version_1_has_a_folder_a_controller_and_the_top_counts_where_the_path_is_the_hosts(tmp_path: Path) -> None:
    tree(
        tmp_path,
        proc__meminfo="MemTotal: 67108864 kB\n",
        proc__self__cgroup="4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n0::/\n",
        **{
            "sys__fs__cgroup__cpu,cpuacct__cpu_DOT_cfs_quota_us": "400000\n",
            "sys__fs__cgroup__cpu,cpuacct__cpu_DOT_cfs_period_us": "100000\n",
        },
        sys__fs__cgroup__memory__memory_DOT_limit_in_bytes=str(GIB),
    )
    assert machine.cores(tmp_path) == 4
    assert machine.memory(tmp_path) == GIB


def test_version_1_without_limits_is_no_limit(tmp_path: Path) -> None:
    tree(
        tmp_path,
        proc__meminfo="MemTotal: 1048576 kB\n",
        proc__self__cgroup="4:memory:/\n3:cpu:/\n",
        sys__fs__cgroup__cpu__cpu_DOT_cfs_quota_us="-1\n",
        sys__fs__cgroup__cpu__cpu_DOT_cfs_period_us="100000\n",
        sys__fs__cgroup__memory__memory_DOT_limit_in_bytes="9223372036854771712\n",
    )
    assert machine.cores(tmp_path) == 8
    assert machine.memory(tmp_path) == GIB


def test_the_limit_of_descriptors_is_raised_as_far_as_the_system_allows() -> None:
    code = (
        "import resource; from ganserve import machine; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 200));"
        " print(machine.descriptors(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.split() == ["200", "200", "200"]


def test_a_folder_of_the_users_own_is_never_taken_for_a_module_of_these_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path(machine.__file__).parents[1]
    monkeypatch.chdir(home)
    at_home = machine.python("ganserve.philox")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ganserve").mkdir()
    (tmp_path / "ganserve" / "__init__.py").write_text("raise SystemExit('a stranger')")
    monkeypatch.setenv("PYTHONPATH", str(home))
    for command, folder in ((at_home, home), (machine.python("ganserve.philox"), tmp_path)):
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stderr) == (0, "")
