"""A set of names that the processes of a service share."""

from pathlib import Path

from service.inference.unloaded import Unloaded


def test_what_one_process_unloads_is_unloaded_in_the_others_and_in_one_that_starts_later(tmp_path: Path) -> None:
    seen: list[str] = []
    one, other = Unloaded(tmp_path), Unloaded(tmp_path, seen.append)
    one.add("digits")
    one.add("plain")
    assert set(other) == {"digits", "plain"}
    assert "digits" in Unloaded(tmp_path)
    other.discard("digits")
    assert "digits" not in one
    assert sorted(seen) == ["digits", "plain"]


def test_every_change_is_seen_however_soon_it_comes(tmp_path: Path) -> None:
    one, other = Unloaded(tmp_path), Unloaded(tmp_path)
    for _ in range(200):
        one.add("digits")
        assert "digits" in other
        other.discard("digits")
        assert "digits" not in one


def test_a_process_that_is_alone_keeps_its_own() -> None:
    seen: list[str] = []
    alone = Unloaded(None, seen.append)
    alone.add("digits")
    alone.add("digits")
    assert set(alone) == {"digits"}
    assert set(Unloaded()) == set()
    alone.discard("digits")
    assert "digits" not in alone
    assert seen == ["digits"]
