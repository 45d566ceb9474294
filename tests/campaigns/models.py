"""Hostile models: whatever is put into the models folder, what is served stays served and each answer has a reason."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.campaigns.archives import mutated
from tests.campaigns.journal import Journal
from tests.campaigns.serving import Serving, serving
from tests.tiny import SIDE, Z, card, endless, network

TITLE = "Hostile models"
PROMISE = (
    "Folders by chance, put into the models folder of a running service: every call about them gets its images, a 4xx, "
    "or 503 with the reason, and never 500; sound ones are served; the other models are served throughout, the same "
    "bytes, and the log has no traceback."
)
CASES = 250
# A graph that does not end keeps a thread for ever.
RESTART_AFTER = 60
LOAD_SECONDS = 4.0
FORBIDDEN = (500, 501, 502)

Maker = Callable[[Random, Path], None]


def lay(folder: Path, content: bytes, **changes: Any) -> None:
    """A sound model's folder, but for the changes in its card."""
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(content)
    made = card(folder.name.removeprefix(".")).model_dump(mode="json")
    told = {"sha256": hashlib.sha256(content).hexdigest(), "file_bytes": len(content), **changes}
    (folder / "1" / "card.json").write_text(json.dumps(made | told))
    (folder / "1" / "samples.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    pointer = {"version": 1, "previous": None, "promoted_at": "2024-01-01T00:00:00Z"}
    (folder / "live.json").write_text(json.dumps(pointer))


def whole(chance: Random, folder: Path) -> None:
    """Nothing is wrong."""
    lay(folder, network(seed=chance.randrange(99)))


def graph(chance: Random, folder: Path) -> None:
    """Other bytes in the graph, and a card that vouches for them."""
    lay(folder, mutated(chance, network(seed=1)))


def unvouched(chance: Random, folder: Path) -> None:
    """Other bytes in the graph than the card vouches for."""
    content = network(seed=1)
    lay(folder, mutated(chance, content), sha256=hashlib.sha256(content).hexdigest())


def text(chance: Random, folder: Path) -> None:
    """Other bytes in the card or the pointer."""
    lay(folder, network(seed=1))
    place = folder / chance.choice(("1/card.json", "live.json"))
    place.write_bytes(mutated(chance, place.read_bytes()))


VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    10**30,
    1.5,
    float("nan"),
    "",
    "a",
    "../x",
    "\0",
    "é" * 999,
    [],
    [[]],
    {},
    [None],
    ["a"] * 5000,
    {"a": {"b": 1}},
    "philox-normal/v9",
    "2024-01-01",
    {"height": 8, "width": 8, "channels": 9},
    {"height": 10**9, "width": 10**9, "channels": 1},
    ["zero", "one"],
    ["0", "1", "2"],
    ["a", "a", "a"],
    ["\n", "<b>", "\u202e"],
)


def words(chance: Random, folder: Path) -> None:
    """A card whose fields have other values, are missing, or are of the future."""
    fields = [*card("a").model_dump(mode="json"), "of-the-future"]
    lay(folder, network(seed=1), **{chance.choice(fields): chance.choice(VALUES) for _ in range(chance.randint(1, 3))})
    if chance.random() < 0.3:
        place = folder / "1" / "card.json"
        told = json.loads(place.read_text())
        del told[chance.choice([*told])]
        place.write_text(json.dumps(told))


def pointers(chance: Random, folder: Path) -> None:
    """A pointer to nothing, or of another form."""
    lay(folder, network(seed=1))
    version = chance.choice((0, -1, 2, 10**30, "1", None, 1.5, [1], True))
    told = chance.choice(({"version": version}, [version], version, {}, {"version": version, "promoted_at": 5}))
    (folder / "live.json").write_text(json.dumps(told))


def odd(chance: Random, folder: Path) -> None:
    """A pipe, a folder, a link, a hole, or nothing in the place of a file."""
    lay(folder, network(seed=1))
    place = folder / chance.choice(("1/model.onnx", "1/card.json", "1/samples.png", "live.json", "1"))
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    match chance.randrange(7):
        case 0:
            os.mkfifo(place)
        case 1:
            place.mkdir()
        case 2:
            place.symlink_to(chance.choice(("/dev/zero", "/dev/stdin", "/proc/self/mem", "/etc/passwd")))
        case 3:
            place.symlink_to(place)
        case 4:
            with place.open("wb") as file:
                file.truncate(1 << 40)
        case 5:
            place.write_bytes(b"")
        case _:
            pass


def folders(chance: Random, folder: Path) -> None:
    """Versions of odd names beside the sound one, and files where folders are."""
    lay(folder, network(seed=1))
    names = ["0", "-1", "01", "1 ", "9" * 30, "2", "x", "²", "1.5", ".staging-x", "config.pbtxt", "+3"]
    for name in chance.sample(names, 5):
        if not (folder / name).exists():
            (folder / name).write_text("") if chance.random() < 0.5 else (folder / name).mkdir()


def odd_graph(kind: str) -> bytes:
    """A generator of the right signature that does something else."""
    if kind == "it does not end":
        return endless()
    made = onnx.load_from_string(network(seed=1))
    nodes = made.graph.node
    last = nodes[-1]
    if kind == "it wants all memory":
        huge = numpy_helper.from_array(np.array([1 << 20, 1 << 20, SIDE, SIDE], np.int64), "huge")
        made.graph.initializer.append(huge)
        nodes.insert(len(nodes) - 1, helper.make_node("Expand", ["bytes", "huge"], ["much"]))
        nodes.insert(len(nodes) - 1, helper.make_node("ReduceMax", ["much"], ["wide"], keepdims=1))
    elif kind == "another size":
        last.attribute[0].ints[:] = [0, 3, 2, 1]
    elif kind == "numbers that are none":
        nodes[3].op_type, nodes[3].input[1] = "Div", "zero"
        made.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
    elif kind == "weights elsewhere":
        weights = made.graph.initializer[0]
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value="../../../../../../etc/passwd")
    elif kind == "an unknown operator":
        last.op_type, last.domain = "Conjure", "strange"
    elif kind == "another signature":
        made.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    elif kind == "another width":
        made.graph.input[0].type.tensor_type.shape.dim[1].dim_value = Z * 2
    elif kind == "a label out of range":
        table = next(one for one in made.graph.initializer if one.name == "table")
        table.CopyFrom(numpy_helper.from_array(np.eye(3, dtype=np.float32)[:1], "table"))
    content: bytes = made.SerializeToString()
    return content


GRAPHS = (
    "it does not end",
    "it wants all memory",
    "another size",
    "numbers that are none",
    "weights elsewhere",
    "an unknown operator",
    "another signature",
    "another width",
    "a label out of range",
)


def doing(chance: Random, folder: Path) -> None:
    """A graph that does not end, wants all memory, reads other files, or gives something else."""
    # One in each life of a service does not end.
    lay(folder, odd_graph(chance.choice(GRAPHS[1:]) if chance.random() < 0.8 else GRAPHS[0]))


MAKERS: tuple[Maker, ...] = (whole, graph, unvouched, text, words, words, pointers, odd, folders, doing)


def run(journal: Journal, folder: Path) -> None:
    """One model after the other, in services of ``RESTART_AFTER`` each."""
    while not _life(journal, folder / f"life-{len(journal.results)}"):
        pass


def _life(journal: Journal, folder: Path) -> bool:
    """Whether there is nothing left to try."""
    folder.mkdir()
    with serving(folder, "--load-timeout", str(LOAD_SECONDS), "--request-timeout", "10") as running:
        expected, told = running.image(), ""
        for turn, number in enumerate(journal.open()):
            if turn == RESTART_AFTER:
                return False
            maker, chance = MAKERS[number % len(MAKERS)], journal.random(number)
            name = f"hostile-{number}"
            staged = running.models / f".{name}"
            maker(chance, staged)
            staged.rename(running.models / name)
            try:
                statuses, wrong = _ask(running, name, expected)
            except (AssertionError, httpx.HTTPError) as error:
                statuses, wrong = [0], repr(error)
            if maker is whole and statuses[:1] != [200]:
                wrong = wrong or "a sound model is not served"
            log = running.told()
            broken = "; ".join(filter(None, (wrong, log if log != told else "")))
            told = log
            # Moved away first: the service may be mending a file in it.
            (running.models / name).rename(folder / name)
            shutil.rmtree(folder / name, ignore_errors=True)
            kind = (maker.__doc__ or "").rstrip(".")
            journal.add(kind, statuses[0], broken)
            if running.process.poll() is not None:
                return False
    return True


def _ask(running: Serving, name: str, expected: bytes) -> tuple[list[int], str]:
    """The statuses of all calls about a model, that of its images first, and what was wrong."""
    client, wrong = running.client, []
    answers = [client.get(f"/generate?model={name}&n=3&seed=1")]
    for path in ("", "/1", "/1/samples.png"):
        answers.append(client.get(f"/models/{name}{path}"))
    answers.append(client.get(f"/images/{name}/1/1/5.png"))
    answers.append(client.put(f"/models/{name}/live", json={"version": 1}))
    for path in ("", "/ready", "/config", "/stats", "/versions/1"):
        answers.append(client.get(f"/v2/models/{name}{path}"))
    latent = {"name": "latent", "shape": [1, Z], "datatype": "FP32", "data": [0.5] * Z}
    label = {"name": "label", "shape": [1, 1], "datatype": "INT64", "data": [1]}
    answers.append(client.post(f"/v2/models/{name}/infer", json={"inputs": [latent, label]}))
    answers.append(client.post(f"/v2/repository/models/{name}/load"))
    for answer in answers:
        if answer.status_code in FORBIDDEN:
            wrong.append(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:300]}")
    for path in ("/models", "/health/ready", "/metrics", "/v2/models/stats"):
        answer = client.get(path)
        if answer.status_code != 200:
            wrong.append(f"{path}: {answer.status_code} {answer.text[:300]}")
    if running.image() != expected:
        wrong.append("another model's picture is another")
    return [answer.status_code for answer in answers], "; ".join(wrong[:3])
