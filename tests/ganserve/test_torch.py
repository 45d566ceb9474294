from __future__ import annotations

import doctest
import importlib
import os
import pickle
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from ganserve import Client, Generator, errors
from ganserve.repository import Repository
from ganserve.torch import Synthetic, _parts
from tests.tiny import publish

ROOT = Path(__file__).parents[2]


def pictures(repository: Repository, **asked: Any) -> Synthetic:
    return Synthetic(repository.root, **{"model": "digits", "n": 50, "seed": 3, "block": 8, **asked})


def read(found: Any) -> list[tuple[bytes, int]]:
    """Rows as values that can be compared."""
    return [(image.numpy().tobytes(), int(label)) for image, label in found]


def test_row_i_is_the_image_of_seed_plus_i_with_the_classes_in_turn(repository: Repository) -> None:
    rows = list(pictures(repository, n=20, seed=2**53 - 4))
    expected = Generator(repository.root / "digits").generate(n=20, seed=2**53 - 4)
    assert [label for _, label in rows] == expected.labels.tolist()
    for (image, _), pixels in zip(rows, expected.images, strict=True):
        assert image.dtype == torch.uint8
        assert np.array_equal(image.permute(1, 2, 0).numpy(), pixels)


def test_a_server_gives_the_rows_of_its_repository_and_of_its_own_stream(server: Any, client: Client) -> None:
    asked: dict[str, Any] = {"model": "digits", "n": 30, "seed": 5, "block": 7}
    there, here = Synthetic(server.url, **asked), Synthetic(server.models, **asked)
    assert read(there) == read(here)
    assert (there.model, there.version, there.class_names) == (here.model, here.version, here.class_names)
    [streamed] = client.stream(n=30, model="digits", seed=5)
    assert np.array_equal(torch.stack([image for image, _ in here]).permute(0, 2, 3, 1).numpy(), streamed.images)


@pytest.mark.parametrize("truncation", [0.7, 0.01, 1])
def test_truncation_is_part_of_the_address_of_each_row_from_a_server_and_from_a_repository(
    server: Any, truncation: float
) -> None:
    asked: dict[str, Any] = {"model": "digits", "n": 20, "seed": 5, "block": 7, "truncation": truncation}
    here, there = Synthetic(server.models, **asked), Synthetic(server.url, **asked)
    expected = Generator(server.models / "digits").generate(n=20, seed=5, truncation=truncation)
    assert read(here) == read(there)
    assert np.array_equal(torch.stack([image for image, _ in here]).permute(0, 2, 3, 1).numpy(), expected.images)
    assert [row["address"] for row in there.rows()] == [row["address"] for row in here.rows()] == expected.addresses
    plain = Synthetic(server.models, **{**asked, "truncation": None})
    assert (read(here) == read(plain)) == (truncation == 1)
    loader = DataLoader(here, batch_size=7, num_workers=2)
    assert read(row for batch in loader for row in zip(*batch, strict=True)) == read(here)


def test_labels_are_names_or_indices_in_turn_from_row_to_row_however_they_are_cut(repository: Repository) -> None:
    found = [label for _, label in pictures(repository, n=20, labels=["two", 0, "two"], block=4)]
    assert found == [(2, 0, 2)[index % 3] for index in range(20)]


def test_a_model_without_classes_has_the_label_minus_one(repository: Repository) -> None:
    rows = list(pictures(repository, model="plain", n=5))
    assert [label for _, label in rows] == [-1] * 5
    assert rows[0][0].shape[0] == 3


def test_a_transform_makes_what_is_yielded(repository: Repository) -> None:
    plain = torch.stack([image for image, _ in pictures(repository, n=9)])
    scaled = torch.stack([image for image, _ in pictures(repository, n=9, transform=lambda image: image / 255)])
    assert scaled.dtype == torch.float32
    assert torch.equal((scaled * 255).round().to(torch.uint8), plain)


@pytest.mark.parametrize("source", ["repository", "model"])
def test_a_folder_is_a_repository_or_a_model_in_one(repository: Repository, source: str) -> None:
    folder = repository.root if source == "repository" else repository.root / "plain"
    assert Synthetic(folder, n=1).model == ("digits" if source == "repository" else "plain")


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_each_row_once_and_in_order_where_a_block_is_a_batch(repository: Repository, workers: int) -> None:
    def loaded(**asked: Any) -> list[Any]:
        loader = DataLoader(pictures(repository, **asked), batch_size=8, num_workers=workers)
        assert len(loader) == 7
        return [row for images, labels in loader for row in zip(images, labels, strict=True)]

    alone = read(pictures(repository))
    assert read(loaded()) == alone
    other = loaded(block=3)
    assert Counter(read(other)) == Counter(alone)
    assert read(other) == read(loaded(block=3))


@given(
    n=st.integers(1, 300), offset=st.integers(0, 40), block=st.integers(1, 40), ranks=st.integers(1, 5),
    workers=st.integers(1, 4),
)  # fmt: skip
def test_ranks_and_workers_share_the_rows_evenly(n: int, offset: int, block: int, ranks: int, workers: int) -> None:
    shares = [list(_parts(offset, n, block, rank, ranks)) for rank in range(ranks)]
    rows = [row for share in shares for worker in range(workers) for part in share[worker::workers] for row in part]
    assert sorted(rows) == list(range(offset, n))
    sizes = [sum(map(len, share)) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    # Where every rank has read as many whole blocks, what was read is a range from the offset on.
    for whole in range((n - offset) // (block * ranks) + 1):
        read = sorted(row for share in shares for part in share[:whole] for row in part)
        assert read == list(range(offset, offset + whole * block * ranks))


RANK = """
import os, sys, torch
from torch.utils.data import DataLoader
from ganserve.torch import Synthetic
if __name__ == "__main__":
    torch.distributed.init_process_group(
        "gloo", init_method="tcp://127.0.0.1:" + sys.argv[2], rank=int(sys.argv[3]), world_size=2
    )
    loader = DataLoader(
        Synthetic(sys.argv[1], model="digits", n=101, block=8), batch_size=8, num_workers=2,
        multiprocessing_context=sys.argv[4],
    )
    rows = [row.numpy().tobytes().hex() for images, _ in loader for row in images]
    print(len(loader.dataset), *rows)
    torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_ranks_of_a_distributed_run_get_rows_of_their_own(repository: Repository, tmp_path: Path, start: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    program = tmp_path / "rank.py"
    program.write_text(RANK)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, program, repository.root, port, str(rank), start],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for rank in range(2)
    ]  # fmt: skip
    told = [rank.communicate(timeout=300) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], told
    first, second = (out.split() for out, _ in told)
    assert (int(first[0]), int(second[0])) == (len(first) - 1, len(second) - 1) == (50, 51)
    alone = Synthetic(repository.root, model="digits", n=101)
    assert Counter(first[1:] + second[1:]) == Counter(image.numpy().tobytes().hex() for image, _ in alone)


def test_torchruns_environment_tells_the_rank(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(pictures(repository))
    monkeypatch.setenv("WORLD_SIZE", "2")
    shares = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        shares.append(pictures(repository))
    assert [len(share) for share in shares] == [25, 25]
    found = []
    for rank, share in zip(("0", "1"), shares, strict=True):
        monkeypatch.setenv("RANK", rank)
        found += read(share)
    assert Counter(found) == Counter(whole)


@pytest.mark.parametrize("seen", [0, 1, 8, 13, 49, 50])
def test_a_reader_goes_on_where_its_state_says_and_later_passes_are_whole(repository: Repository, seen: int) -> None:
    whole = read(pictures(repository))
    reader = pictures(repository)
    rows = iter(reader)
    assert read(next(rows) for _ in range(seen)) == whole[:seen]
    other = pictures(repository)
    other.load_state_dict(pickle.loads(pickle.dumps(reader.state_dict())))
    assert len(other) == 50 - seen
    assert other.state_dict() == reader.state_dict()
    assert read(other) == whole[seen:]
    assert len(other) == 50
    assert read(other) == whole


def test_a_loader_with_workers_goes_on_from_the_offset_that_it_has_counted(repository: Repository) -> None:
    whole = read(pictures(repository))
    first = iter(DataLoader(pictures(repository), batch_size=8, num_workers=2))
    got = [row for _ in range(3) for row in zip(*next(first), strict=True)]
    rest = pictures(repository)
    rest.load_state_dict({"offset": len(got)})
    assert len(rest) == 26
    left = [row for batch in DataLoader(rest, batch_size=8, num_workers=1) for row in zip(*batch, strict=True)]
    assert read(got) + read(left) == whole
    assert read(pictures(repository, offset=24)) == whole[24:]


def test_the_state_of_other_rows_or_of_another_number_of_workers_is_refused(repository: Repository) -> None:
    state = pictures(repository).state_dict()
    others = ({"labels": ["two"]}, {"truncation": 0.7}, {"block": 3, "done": 4})
    for changed in ({"seed": 9}, {"version": 7}, {"model": "plain"}, {"n": 51}, {"offset": -1}, *others):
        with pytest.raises(errors.Invalid, match="expected"):
            pictures(repository).load_state_dict({**state, **changed})
    reader = pictures(repository)
    reader.load_state_dict({**state, "done": 3, "of": (2, 1)})
    with pytest.raises(errors.Invalid, match="go on with as many"):
        next(iter(reader))


def test_a_promotion_changes_nothing_for_a_data_set_that_is_there(repository: Repository) -> None:
    before = pictures(repository)
    rows = read(before)
    publish(repository, "digits", seed=9)
    assert read(before) == rows
    assert read(pictures(repository)) != rows


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"n": 0}, "n is 0: expected a whole number, at least 1"),
        ({"n": 2.5}, "n is 2.5"),
        ({"labels": 3}, "labels is 3: expected a list"),
        ({"block": 0}, "block is 0"),
        ({"offset": -1}, "offset is -1"),
        ({"labels": "zero"}, "expected a list of names or indices"),
        ({"labels": []}, "empty list"),
        ({"labels": ["three"]}, "zero, one, two"),
        ({"seed": -1}, "out of range"),
        *(({"truncation": value}, "expected whole hundredths above 0, up to 1") for value in (0, 1.01, 0.005, "much")),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_read(
    repository: Repository, asked: dict[str, Any], told: str
) -> None:
    with pytest.raises(errors.Invalid, match=told):
        pictures(repository, **asked)


def test_what_is_not_there_is_not_found(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(errors.NotFound, match="no model"):
        pictures(repository, model="nothing")
    with pytest.raises(errors.NotFound, match="no version"):
        pictures(repository, version=7)
    with pytest.raises(errors.NotFound, match="expected a server's URL or a model repository"):
        Synthetic(tmp_path / "nowhere", n=1)
    with pytest.raises(errors.Unreachable):
        Synthetic("http://127.0.0.1:9", n=1)
    with pytest.raises(errors.Invalid, match="s3://BUCKET"):
        Synthetic("ftp://somewhere/models", n=1)


def test_rows_are_ready_for_the_data_sets_of_hugging_face(repository: Repository) -> None:
    import datasets

    found = pictures(repository, n=30)
    alone = read(found)
    loaded = datasets.IterableDataset.from_generator(found.rows, gen_kwargs={"parts": found.parts(4)})
    assert loaded.num_shards == 4
    rows = list(loaded)
    assert [(np.asarray(row["image"]).tobytes(), row["label"]) for row in rows] == alone
    assert rows[4]["address"] == f"/images/digits/1/{rows[4]['label']}/{rows[4]['seed']}.png"
    assert [row["seed"] for row in found.rows()] == list(range(3, 33))


def test_the_examples_of_the_docstring_are_true(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    ran = doctest.testmod(importlib.import_module("ganserve.torch"))
    assert ran.attempted
    assert ran.failed == 0


def test_without_torch_it_says_what_brings_it() -> None:
    code = "import sys; sys.modules['torch'] = None\ntry: import ganserve.torch\nexcept ImportError as e: print(e)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "ganserve.torch needs PyTorch: pip install torch, or 'ganserve[training]'\n"


def test_an_object_store_gives_the_rows_of_its_copy_on_a_disk_also_to_workers(
    repository: Repository, bucket: str
) -> None:
    shared = Repository(bucket)
    publish(shared, "digits", seed=1)
    there = Synthetic(bucket, n=30, seed=5, block=8)
    here = read(pictures(repository, n=30, seed=5))
    assert read(there) == here
    loader = DataLoader(there, batch_size=8, num_workers=2, timeout=60)
    assert read(row for batch in loader for row in zip(*batch, strict=True)) == here
