"""Numbers that are added up over processes."""

import threading
from pathlib import Path

from service.observe.figures import Figures


def test_each_process_adds_to_its_own_and_all_are_read() -> None:
    alone = Figures()
    alone.add("a", 1, 5)
    alone.add("a", 1, 6)
    assert alone.all() == {"a": [(2, 11)]}


def test_those_that_share_a_folder_read_each_others(tmp_path: Path) -> None:
    one, other = Figures(tmp_path), Figures(tmp_path)
    one.add("runs", 1, -5)
    other.add("runs", 2, 1 << 60)
    other.add("größe", 0, 3)
    assert sorted(one.all()["runs"]) == sorted(other.all()["runs"]) == [(1, -5), (2, 1 << 60)]
    assert one.all()["größe"] == [(0, 3)]


def test_a_file_grows_with_its_names_and_keeps_what_was_counted(tmp_path: Path) -> None:
    one = Figures(tmp_path)
    names = [f"{'name' * 20}/{i}" for i in range(2000)]
    for name in (*names, *names):
        one.add(name, 1, 2)
    assert Figures(tmp_path).all() == {name: [(2, 4)] for name in names}


def test_who_reads_while_another_writes_sees_whole_records(tmp_path: Path) -> None:
    writer, reader = Figures(tmp_path), Figures(tmp_path)

    def write() -> None:
        for i in range(3000):
            writer.add(f"name-{i}", 1, i)

    thread = threading.Thread(target=write)
    thread.start()
    while thread.is_alive():
        assert all(name == f"name-{total}" or (count, total) == (0, 0)
                   for name, [(count, total)] in reader.all().items())  # fmt: skip
    thread.join()
    assert len(reader.all()) == 3000
