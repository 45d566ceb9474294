from __future__ import annotations

from pathlib import Path

import torch

from training import checkpoint


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 7, {"step": 7, "weights": torch.arange(3)})
    state, warnings = checkpoint.latest(tmp_path)
    assert state is not None
    assert state["step"] == 7
    assert torch.equal(state["weights"], torch.arange(3))
    assert warnings == []


def test_the_latest_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, {"step": step})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000002.pt", "step-000000003.pt"]


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"step": 1})
    last = checkpoint.save(tmp_path, 2, {"step": 2})
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    state, warnings = checkpoint.latest(tmp_path)
    assert state == {"step": 1}
    assert "step-000000002.pt is damaged" in warnings[0]


def test_a_truncated_checkpoint_gives_way_to_the_one_before_it(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"step": 1})
    last = checkpoint.save(tmp_path, 2, {"step": 2})
    last.write_bytes(last.read_bytes()[:20])
    assert checkpoint.latest(tmp_path)[0] == {"step": 1}


def test_without_any_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "absent") == (None, [])
