"""How many processes serve where nobody has said."""

import tempfile

import pytest

from ganserve import machine
from ganserve.settings import Settings
from service.inference.engine import CPU, CUDA
from service.processes import count
from service.processes.count import PROCESS_BYTES, decide


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    having(monkeypatch, 64, 1 << 40)


def having(patch: pytest.MonkeyPatch, cores: int, memory: int | None) -> None:
    patch.setattr(machine, "cores", lambda: cores)
    patch.setattr(machine, "memory", lambda: memory)


def settings(**changes: object) -> Settings:
    return Settings.model_validate({"device": "cpu", **changes})


@pytest.mark.parametrize(
    ("cores", "memory", "processes", "why"),
    [
        (1, 1 << 40, 1, "1 core"),
        (4, 1 << 40, 4, "4 cores"),
        (64, 1 << 40, 8, "at most 8"),
        (64, None, 8, "at most 8"),
        (4, 7 * PROCESS_BYTES, 3, "1120 MiB of memory, 320 for each"),
        (4, PROCESS_BYTES // 2, 1, "80 MiB of memory, 320 for each"),
    ],
)
def test_it_is_the_least_of_cores_eight_and_memory_over_twice_a_process_and_says_which(
    monkeypatch: pytest.MonkeyPatch, cores: int, memory: int | None, processes: int, why: str
) -> None:
    having(monkeypatch, cores, memory)
    assert decide(settings()) == (processes, why)


def test_what_is_set_is_taken() -> None:
    assert decide(settings(workers=5)) == (5, "as set")


def test_one_serves_where_cuda_or_another_server_runs_the_generators(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decide(settings(engine="triton://host:8000"))[0] == 1
    monkeypatch.setattr(count, "providers", lambda device: ([CUDA, CPU], CUDA))
    assert decide(settings())[0] == 1


def test_one_serves_where_several_could_share_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    assert decide(settings())[0] == 1


def test_the_largest_request_finds_room_in_a_process_share_of_the_queue() -> None:
    asked = settings(max_images=1000, max_queued_images=3000)
    processes, why = decide(asked)
    assert processes == 3
    assert "largest request" in why
    assert asked.model_copy(update={"workers": processes}).image_limit == 1000
