"""Pictures verified without a server, as typed; and by the client and the local generator."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ganserve import AsyncClient, Client, Generator, Verdict, commands, errors
from ganserve.proof import exact_digest

PLACE = "/images/mnist-projgan/5/3/42.png"


@pytest.fixture
def pictures(place: Any, client: Client, tmp_path: Path) -> dict[str, Path]:
    """A picture as it is made, one with a pixel changed, one stripped, and what is none."""
    made = client.generate(label=3, n=1, seed=42, version=5)
    found = {name: tmp_path / f"{name}.png" for name in ("whole", "changed", "stripped", "none")}
    made.save(found["whole"], padding=0)
    made.images[0, 3, 5] ^= 1
    made.save(found["changed"], padding=0)
    with Image.open(found["whole"]) as image:
        Image.fromarray(np.asarray(image)).save(found["stripped"])
    found["none"].write_bytes(b"no picture")
    return found


def run(*arguments: object) -> int:
    return commands.main(["verify", *map(str, arguments)])


def test_the_exit_status_tells_whether_all_match(
    place: Any, pictures: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    at = ("--models", place.models)
    assert run(pictures["whole"], *at) == 0
    assert capsys.readouterr().out == f"{pictures['whole']}: match {PLACE}\n"
    assert run(pictures["whole"], pictures["changed"], *at) == 1
    assert capsys.readouterr().out.splitlines()[1] == f"{pictures['changed']}: differs in 1 pixel {PLACE}"
    assert run(pictures["stripped"], *at) == 1
    assert "unmarked (the picture carries no address" in capsys.readouterr().out


def test_what_cannot_be_verified_is_said_and_the_rest_is_looked_at(
    place: Any, pictures: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(pictures["none"], tmp_path / "not-there.png", pictures["whole"], "--models", place.models) == 2
    told = capsys.readouterr()
    assert told.out == f"{pictures['whole']}: match {PLACE}\n"
    first, second = told.err.splitlines()
    assert first.startswith(f"error: {pictures['none']}: the picture is neither PNG nor WebP")
    assert "not-there.png" in second


@pytest.mark.parametrize("address", [PLACE, "model=mnist-projgan&version=5&label=3&seed=42"])
def test_a_stripped_picture_is_found_by_its_address(
    place: Any, pictures: dict[str, Path], monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("GANSERVE_MODELS", str(place.models))
    assert run(pictures["stripped"], "--address", address) == 0
    assert run(pictures["stripped"], "--address", address.replace("42", "43")) == 1
    assert run(pictures["stripped"], "--address", address.replace("5", "99")) == 2
    assert run(pictures["stripped"], "--address", "x=1") == 2
    # Without a model the flagship is meant, as by the service.
    assert run(pictures["stripped"], "--address", "version=5&label=3&seed=42") == 0


def test_a_folder_without_models_is_an_error(pictures: dict[str, Path], tmp_path: Path) -> None:
    assert run(pictures["whole"], "--models", tmp_path / "none") == 2
    assert run(pictures["whole"], "--models", tmp_path) == 2
    assert run(pictures["whole"], "--models", "http://127.0.0.1:8000") == 2


def test_client_async_client_and_generator_find_the_same(place: Any, client: Client, pictures: dict[str, Path]) -> None:
    local = Generator(place.models / "plain")

    async def there(given: Any, **asked: Any) -> Verdict:
        async with AsyncClient() as connected:
            return await connected.verify(given, **asked)

    for given, asked in (
        (pictures["whole"], {}),
        (pictures["whole"].read_bytes(), {}),
        (str(pictures["changed"]), {}),
        (pictures["stripped"], {}),
        (pictures["stripped"], {"address": PLACE}),
    ):
        found = client.verify(given, **asked)
        assert found == asyncio.run(there(given, **asked)) == local.verify(given, **asked)
    for given, asked, kind in (
        (pictures["none"], {}, errors.Invalid),
        (pictures["whole"], {"address": "seed=1&padding=9"}, errors.Invalid),
        (pictures["whole"], {"address": PLACE.replace("projgan", "nothing")}, errors.NotFound),
        (bytes(5 << 20), {}, errors.TooLarge),
    ):
        for verify in (client.verify, local.verify):
            with pytest.raises(kind):
                verify(given, **asked)


def test_where_an_exact_version_is_not_so_here_a_grey_level_is_no_reproach(
    place: Any, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = client.generate(label=3, n=1, seed=42, version=5)
    near = images.images.copy()
    near[near > 100] -= 1
    content = near_png(near)
    assert Generator(place.models / "mnist-projgan").verify(content, address=PLACE).verdict == "differs"
    monkeypatch.setattr("ganserve.generator.exact_digest", lambda *given: exact_digest(*given)[::-1])
    found = Generator(place.models / "mnist-projgan").verify(content, address=PLACE)
    assert (found.verdict, found.exact) == ("match", False)


def near_png(images: np.ndarray) -> bytes:
    from ganserve import png

    return png.encode(images[0])
