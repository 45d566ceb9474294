import hmac
from typing import Any

import pytest
from pydantic import SecretStr

from service.http.auth import Auth
from service.http.errors import Forbidden, Unauthorized
from tests.service.conftest import ADMIN, USER, Serve

BOTH = Auth.of(SecretStr("user"), SecretStr("admin"))
USER_CALLS = [
    ("GET", "/generate?seed=1"),
    ("POST", "/generate"),
    ("GET", "/images/digits/1/0/1.png"),
    ("GET", "/models"),
    ("GET", "/models/digits"),
    ("GET", "/models/digits/1"),
    ("GET", "/models/digits/1/samples.png"),
]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/jobs"), ("PUT", "/models/digits/live"), ("PUT", "/datasets/a"), ("POST", "/generate")],
)
@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-16", "application/zip"])
def test_the_token_is_asked_for_before_the_body(serve: Serve, method: str, path: str, kind: str) -> None:
    client = serve(token=SecretStr("user-secret"))
    answer = client.request(method, path, content=b"{", headers={"Content-Type": kind})
    assert answer.status_code == 401


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dXNlcjp1c2Vy", "user"])
def test_missing_credentials_are_401_and_say_how(header: str | None) -> None:
    for check in (BOTH.check_user, BOTH.check_admin):
        with pytest.raises(Unauthorized, match="Authorization: Bearer") as raised:
            check(header)
        assert raised.value.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("token", ["User", "user2", "adminadmin", "ä", "\udcff"])
def test_a_wrong_token_is_401(token: str) -> None:
    for check in (BOTH.check_user, BOTH.check_admin):
        with pytest.raises(Unauthorized) as raised:
            check(f"Bearer {token}")
        assert 'error="invalid_token"' in raised.value.headers["WWW-Authenticate"]


def test_the_users_token_is_not_the_admins_but_the_admins_is_the_users() -> None:
    BOTH.check_user("Bearer user")
    BOTH.check_user("bearer admin")
    BOTH.check_admin("Bearer admin")
    with pytest.raises(Forbidden, match="admin token"):
        BOTH.check_admin("Bearer user")


def test_without_tokens_generating_is_open_and_admin_calls_are_closed() -> None:
    none = Auth.of(None, None)
    none.check_user(None)
    with pytest.raises(Forbidden, match="GANSERVE_ADMIN_TOKEN"):
        none.check_admin("Bearer anything")


def test_tokens_are_compared_in_constant_time_and_at_one_length(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def watched(a: Any, b: Any) -> bool:
        lengths.append((len(a), len(b)))
        return compare(a, b)

    monkeypatch.setattr("service.http.auth.hmac.compare_digest", watched)
    BOTH.check_admin("Bearer admin")
    with pytest.raises(Unauthorized):
        BOTH.check_admin("Bearer x" * 50)
    assert set(lengths) == {(32, 32)}


def test_tokens_are_not_kept_and_not_shown() -> None:
    assert "user" not in repr(BOTH)
    assert b"user" not in vars(BOTH).values()


@pytest.mark.parametrize(("method", "path"), USER_CALLS)
def test_with_a_token_set_every_call_needs_it(serve: Serve, method: str, path: str) -> None:
    client = serve(token="user-secret")
    refused = client.request(method, path)
    assert refused.status_code == 401
    assert "www-authenticate" in refused.headers
    for header in (USER, ADMIN):
        assert client.request(method, path, headers=header).status_code == 200


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics", "/docs", "/openapi.json"])
def test_probes_and_documentation_are_open(serve: Serve, path: str) -> None:
    assert serve(token="user-secret").get(path).status_code == 200


def test_promoting_needs_the_admin_token(serve: Serve) -> None:
    client = serve(token="user-secret")
    call: dict[str, Any] = {"url": "/models/digits/live", "json": {"version": 1}}
    assert client.put(**call).status_code == 401
    assert client.put(**call, headers=USER).status_code == 403
    assert client.put(**call, headers=ADMIN).status_code == 200


def test_two_tokens_of_a_role_are_valid_at_once_and_each_alone(serve: Serve) -> None:
    client = serve(token=SecretStr("old-user,new-user"))
    for token, status in (("old-user", 200), ("new-user", 200), ("old-user,new-user", 401), ("old", 401)):
        assert client.get("/models", headers={"Authorization": f"Bearer {token}"}).status_code == status, token
    assert client.put("/models/digits/live", headers={"Authorization": "Bearer new-user"}, json={}).status_code == 403


@pytest.mark.parametrize("path", ["/generate?seed=1&label=1", "/images/digits/1/0/1.png", "/models", "/jobs"])
def test_two_authorizations_are_refused_whichever_of_them_is_right(serve: Serve, path: str) -> None:
    client = serve(token=SecretStr("user-secret"))
    right, wrong = ("Authorization", "Bearer admin-secret"), ("Authorization", "Bearer wrong")
    tag = client.get(path, headers=[right]).headers.get("etag", '"none"')
    for _ in range(2):
        client.get(path, headers=[right, ("If-None-Match", tag)])
    for both in ([right, wrong], [wrong, right], [right, right]):
        answer = client.get(path, headers=[*both, ("If-None-Match", tag)])
        assert answer.status_code == 400
        assert answer.json()["detail"] == "the header Authorization is given 2 times: send it once"
