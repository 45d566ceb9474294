"""The fair queue alone: whose rows run next."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganserve.latents import consecutive
from service.inference.engine import Engine
from service.inference.queue import FairQueue
from service.inference.rows import Chunk, Rows, Waiting
from tests.engines import DummyEngine
from tests.tiny import card

ENGINE = DummyEngine(card("m"), 8)
OTHER = DummyEngine(card("other"), 8)


def job(n: int, engine: Engine = ENGINE, *, small: bool = False) -> Waiting:
    return Waiting(engine, Rows(consecutive(0, n), np.zeros(n, np.int64)), n, small)


def queue(*jobs: Waiting, limit: int = 4096, total: int = 8192, delay: float = 0.0) -> FairQueue[Waiting]:
    made: FairQueue[Waiting] = FairQueue(limit=limit, total=total, delay=delay)
    for each in jobs:
        made.push(each, 0.0)
    return made


def told(chunk: Chunk[Waiting] | None) -> list[tuple[Waiting, int, int]]:
    assert chunk is not None
    return [(piece.job, piece.start, piece.stop) for piece in chunk.pieces]


def everything(engine: Engine) -> int:
    return engine.max_rows


def test_small_requests_share_a_chunk_in_the_order_of_arrival() -> None:
    first, second, third = job(3), job(3), job(3)
    waiting = queue(first, second, third)
    assert told(waiting.take(0, 1)) == [(first, 0, 3), (second, 0, 3), (third, 0, 2)]
    assert told(waiting.take(0, 1)) == [(third, 2, 3)]
    assert waiting.take(0, 1) is None
    assert (waiting.rows, len(waiting)) == (0, 0)


def test_models_take_turns() -> None:
    waiting = queue(job(16), job(16, OTHER))
    engines = []
    while (chunk := waiting.take(0, 1)) is not None:
        engines.append(chunk.engine)
    assert engines == [ENGINE, OTHER, ENGINE, OTHER]


def test_a_strangers_thousand_images_go_to_the_back_after_each_chunk_while_somebody_asks_for_less() -> None:
    large, small = job(1000), job(3)
    waiting = queue(large, small)
    assert told(waiting.take(0, 1)) == [(large, 0, 8)]
    assert told(waiting.take(0, 1)) == [(small, 0, 3), (large, 8, 13)]


def test_large_requests_of_one_size_are_done_one_after_the_other() -> None:
    first, second = job(20), job(20)
    waiting = queue(first, second)
    order = []
    while (chunk := waiting.take(0, 1)) is not None:
        order += [(piece.job, len(piece)) for piece in chunk.pieces]
    assert order == [(first, 8), (first, 8), (first, 4), (second, 4), (second, 8), (second, 8)]


@pytest.mark.parametrize(
    ("rows", "parts", "sizes"),
    [(8, 2, [4, 4]), (8, 4, [4, 4]), (6, 2, [4, 2]), (32, 2, [8, 8, 8, 4, 4]), (32, 1, [8] * 4)],
)
def test_a_lone_request_is_cut_into_a_part_a_taker_but_not_too_fine(rows: int, parts: int, sizes: list[int]) -> None:
    waiting = queue(job(rows))
    found = []
    while (chunk := waiting.take(0, parts)) is not None:
        found.append(sum(map(len, chunk.pieces)))
    assert found == sizes


def test_who_takes_small_requests_lets_nothing_overtake_a_large_one() -> None:
    small, large, late = job(2, small=True), job(6), job(2, small=True)
    waiting = queue(small, large, late)
    assert told(waiting.take_small(0, 1, everything)) == [(small, 0, 2)]
    assert waiting.take_small(0, 1, everything) is None
    assert told(waiting.take(0, 1)) == [(large, 0, 6), (late, 0, 2)]


def test_of_small_requests_that_share_a_run_none_needs_a_second_one() -> None:
    first, second = job(5, small=True), job(5, small=True)
    waiting = queue(first, second)
    assert told(waiting.take_small(0, 1, everything)) == [(first, 0, 5)]
    assert told(waiting.take_small(0, 1, everything)) == [(second, 0, 5)]


def test_a_small_request_of_a_model_that_became_slow_is_not_stuck() -> None:
    slow = job(3, small=True)
    assert told(queue(slow).take_small(0, 1, lambda engine: 0)) == [(slow, 0, 1)]


def test_a_small_request_that_is_alone_is_shared_and_one_in_company_is_not() -> None:
    alone = job(8, small=True)
    assert told(queue(alone).take_small(0, 2, everything)) == [(alone, 0, 4)]
    first, second = job(6, small=True), job(2, small=True)
    assert told(queue(first, second).take_small(0, 2, everything)) == [(first, 0, 6), (second, 0, 2)]


def test_a_window_is_anchored_at_the_first_row_and_closed_by_a_full_chunk() -> None:
    waiting = queue(job(1, small=True), delay=0.1)
    waiting.push(job(1), 0.04)
    assert waiting.take(0.05, 1) is None
    assert waiting.take_small(0.05, 1, everything) is None
    assert waiting.due_in(0.05) == waiting.due_in(0.05, small=True) == pytest.approx(0.05)
    waiting.push(job(6), 0.06)
    chunk = waiting.take(0.06, 1)
    assert chunk is not None
    assert len(chunk.pieces) == 3
    assert waiting.due_in(0.06) is None


def test_rows_that_the_queue_has_no_room_for_are_told_why() -> None:
    waiting = queue(job(10), limit=10, total=15)
    assert waiting.full(job(1)) == "10 images wait for m already, and at most 10 may"
    assert waiting.full(job(6, OTHER)) == "10 images wait already, and at most 15 may"
    assert waiting.full(job(5, OTHER)) is None


def test_what_is_removed_leaves_and_counts_what_was_left_of_it() -> None:
    large, small = job(20), job(2)
    waiting = queue(large, small)
    waiting.take(0, 1)
    assert waiting.remove(large) == 12
    assert waiting.remove(large) == 0
    assert (waiting.rows, list(waiting), list(waiting.by_model())) == (2, [small], [("m", 2)])
    assert waiting.remove(small) == 2
    assert waiting.due_in(0) is None
    assert waiting.take(0, 1) is None


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.booleans(), st.booleans()), max_size=12),
    st.lists(st.tuples(st.booleans(), st.integers(1, 4)), max_size=40),
)
def test_every_row_runs_once_in_its_order_whoever_takes_it(
    asked: list[tuple[int, bool, bool]], takers: list[tuple[bool, int]]
) -> None:
    jobs = [job(n, OTHER if other else ENGINE, small=small and n <= 8) for n, other, small in asked]
    waiting = queue(*jobs)
    ran: dict[Waiting, list[tuple[int, int]]] = {each: [] for each in jobs}
    for small, parts in [*takers, *[(False, 1)] * sum(each.n for each in jobs)]:
        chunk = waiting.take_small(0, parts, everything) if small else waiting.take(0, parts)
        for piece in chunk.pieces if chunk is not None else []:
            assert piece.job.engine is chunk.engine  # type: ignore[union-attr]
            ran[piece.job].append((piece.start, piece.stop))
        assert chunk is None or sum(map(len, chunk.pieces)) <= 8
        assert waiting.rows == sum(each.left for each in jobs)
    for each, spans in ran.items():
        assert (spans[0][0], spans[-1][1]) == (0, each.n)
        assert all(before[1] == after[0] for before, after in pairwise(spans))
