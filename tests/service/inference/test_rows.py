"""Rows of requests: parts of them, and many together."""

import numpy as np

from ganserve.latents import consecutive, latents
from service.inference.rows import Rows, Waiting
from tests.engines import DummyEngine
from tests.tiny import Z, card


def test_a_part_is_those_rows_and_no_copy() -> None:
    seeds = consecutive(7, 5)
    part = Rows(seeds, np.arange(5, dtype=np.int64)).part(1, 3)
    assert len(part) == 2
    assert part.seeds is not None
    assert part.labels is not None
    assert part.seeds.tolist() == [8, 9]
    assert part.labels.tolist() == [1, 2]
    assert np.shares_memory(part.seeds, seeds)


def test_together_seeds_stay_seeds_and_beside_given_latents_become_theirs() -> None:
    engine = DummyEngine(card("m"), 8)
    seeded = Rows(consecutive(3, 2), np.array([1, 2]))
    joined = Rows.together([seeded, Rows(consecutive(9, 1), np.array([3]))], engine)
    assert joined.seeds is not None
    assert joined.labels is not None
    assert (joined.seeds.tolist(), joined.labels.tolist()) == ([3, 4, 9], [1, 2, 3])
    given = np.ones((1, Z), np.float32)
    mixed = Rows.together([seeded, Rows(None, np.array([3]), given)], engine).latents(engine)
    assert np.array_equal(mixed, np.concatenate([latents("philox-normal/v1", consecutive(3, 2), Z), given]))


def test_what_is_left_of_a_request_is_what_was_not_taken() -> None:
    waiting = Waiting(DummyEngine(card("m")), Rows(consecutive(0, 9), None), 9)
    waiting.taken = 4
    assert waiting.left == 5
