"""What processes know of each other's runs."""

import pytest

from service.inference import cores
from service.inference.cores import Cores


@pytest.fixture(autouse=True)
def alone_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_given", None)


def test_runs_of_every_process_leave_fewer_cores_and_never_fewer_than_none() -> None:
    memory = [0, 0]
    one, other = Cores(2, memory, 0), Cores(2, memory, 1)
    one.begin()
    assert (one.here, other.here, one.free, other.free) == (1, 0, 1, 1)
    other.begin()
    other.begin()
    assert (one.here, other.here, one.free) == (1, 2, 0)
    other.end()
    other.end()
    one.end()
    assert memory == [0, 0]
    assert one.free == 2


def test_a_process_that_shares_nothing_counts_alone() -> None:
    mine, again = cores.mine(2), cores.mine(2)
    mine.begin()
    assert (mine.free, again.free) == (1, 2)


def test_a_new_process_takes_back_what_the_dead_one_in_its_place_had_told() -> None:
    memory = [1, 3]
    cores.give(memory, 1)
    assert memory == [1, 0]
    mine = cores.mine(2)
    mine.begin()
    assert memory == [1, 1]
    assert mine.free == 0
