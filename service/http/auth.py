"""Who may do what: bearer tokens, compared in constant time.

The user's token opens what generates; the admin's opens everything. Without a user's token the former is open to
all. Without an admin's token the admin calls are closed, never open.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from pydantic import SecretStr

from service.http.errors import Forbidden, Unauthorized


def _digest(token: str) -> bytes:
    # Digests have one length, so the comparison does not tell the token's either.
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


Digests = tuple[bytes, ...]


@dataclass(frozen=True)
class Auth:
    """The two roles' tokens, kept as digests; a role that is being given a new token has two for a while."""

    user: Digests | None = field(default=None, repr=False)
    admin: Digests | None = field(default=None, repr=False)

    @classmethod
    def of(cls, token: SecretStr | None, admin_token: SecretStr | None) -> Auth:
        """From the settings."""
        return cls(_digests(token), _digests(admin_token))

    def check_user(self, authorization: str | None) -> None:
        """Raises Unauthorized unless the call is open or the header carries either token."""
        if self.user is None:
            return
        given = _bearer(authorization)
        # Both comparisons always run.
        if not _among(given, self.user) | _among(given, self.admin):
            raise _wrong_token()

    def check_admin(self, authorization: str | None) -> None:
        """Raises Unauthorized without a known token, Forbidden with one that is not the admin's."""
        if self.admin is None:
            raise Forbidden(
                "admin calls are closed: this server has no admin token; set GANSERVE_ADMIN_TOKEN"
            )
        given = _bearer(authorization)
        if _among(given, self.admin):
            return
        if _among(given, self.user):
            raise Forbidden("this token may generate; this call needs the admin token")
        raise _wrong_token()


def _digests(secret: SecretStr | None) -> Digests | None:
    return tuple(_digest(token) for token in secret.get_secret_value().split(",")) if secret else None


def _among(given: bytes, known: Digests | None) -> bool:
    """Whether it is one of them; each is compared, in constant time."""
    return bool(sum(hmac.compare_digest(given, token) for token in known or ()))


def _bearer(authorization: str | None) -> bytes:
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized(
            "credentials are missing: send the header Authorization: Bearer TOKEN",
            headers={"WWW-Authenticate": 'Bearer realm="ganserve"'},
        )
    return _digest(token.strip())


def _wrong_token() -> Unauthorized:
    return Unauthorized(
        "this token is not known here",
        headers={"WWW-Authenticate": 'Bearer realm="ganserve", error="invalid_token"'},
    )
