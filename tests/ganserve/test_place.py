from __future__ import annotations

from pathlib import Path

import pytest

from ganserve.place import EXPECTED, inside, is_url, place
from ganserve.settings import SettingsError, load


@pytest.mark.parametrize("told", ["s3://bucket", "s3://bucket/a/models", "gs://b/models/", "az://container/models"])
def test_the_three_clouds_are_urls(told: str) -> None:
    assert place(told) == told.rstrip("/")
    assert is_url(place(told))
    assert inside(place(told), "x") == f"{told.rstrip('/')}/x"


@pytest.mark.parametrize("told", ["models", "/srv/models", "s3", "a b/c", "./s3:bucket", "übung"])
def test_anything_else_is_a_folder(told: str) -> None:
    assert place(told) == Path(told)
    assert not is_url(place(told))


@pytest.mark.parametrize(
    "told",
    [
        "http://host/models",
        "https://user:secret@host/models",
        "file:///srv/models",
        "s3://key:secret@bucket/models",
        "s3://bucket/models?X-Amz-Credential=secret",
        "s3://bucket/models#secret",
        "s3://bucket/../secret",
        "s3://bucket//secret",
        "s3://",
        "s3:/bucket/secret",
        "az://secret@account/models",
        "S3://bucket/secret",
        "memory:///secret",
        "s3://bucket/mo dels",
        "s3://bucket/secret\n",
    ],
)
def test_other_urls_are_refused_and_never_repeated(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="expected a folder") as refused:
        place(told)
    assert str(refused.value) == EXPECTED
    if told.endswith("\n"):
        return
    monkeypatch.setenv("GANSERVE_MODELS", told)
    with pytest.raises(SettingsError) as error:
        load()
    assert EXPECTED in str(error.value)
    assert "secret" not in str(error.value)
    assert len(str(error.value).splitlines()) == 1
