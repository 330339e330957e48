"""JSON Web Tokens, by PyJWT, with the rules of RFC 8725 made defaults. The only importer of jwt.

PyJWT reads the clock itself; its time checks are switched off and made here against
`request.received_at`, so that time is an argument in tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

import jwt

from ws_middleware.errors import ConfigError, Refused
from ws_middleware.gate.credentials import check_sources
from ws_middleware.names import is_name
from ws_middleware.types import Principal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ws_middleware.types import UpgradeRequest

__all__ = ["JWTAuth"]

#: Longer tokens are not looked at: verification costs time before it is known who asks.
_TOKEN_BYTES: Final = 8192

#: Of one family of keys, so that a public key can never be taken for a secret (RFC 8725, 2.1).
_FAMILIES: Final = (
    frozenset({"HS256", "HS384", "HS512"}),
    frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    frozenset({"ES256", "ES256K", "ES384", "ES512", "ES521"}),
    frozenset({"EdDSA"}),
)

#: RFC 7518 section 3.2: a key at least as long as the hash.
_HMAC_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}

_CHALLENGE: Final = (("WWW-Authenticate", "Bearer"),)


class JWTAuth:
    """Authenticate by a JSON Web Token.

    Args:
        key: the secret (HS*) or the public key (PEM) that tokens are checked with.
        algorithms: which are accepted; all of one family. There is no default (RFC 8725, 3.1).
        sources: where to look, in this order: "header" (`Authorization: Bearer …`), "subprotocol"
            (`new WebSocket(url, ["bearer", token])`), "query:NAME".
        audience: the `aud` a token must have; a token with an `aud` is refused if none is given.
        issuer: the `iss` a token must have.
        leeway: seconds that two clocks may differ.
        user_claim: the claim that holds the user's id, as text or a number.

    A token must have `exp`; when it passes, the socket closes with 4401.

    Raises:
        ConfigError: no algorithm, `none`, a mix of families, or a key that is too short.
    """

    ambient = False
    #: Called on the event loop itself: a verification takes 30 to 80 us.
    runs_inline = True

    def __init__(
        self,
        key: str | bytes,
        *,
        algorithms: Sequence[str],
        sources: Sequence[str] = ("header", "subprotocol", "query:token"),
        audience: str | Sequence[str] | None = None,
        issuer: str | Sequence[str] | None = None,
        leeway: float = 10.0,
        user_claim: str = "sub",
    ) -> None:
        self._algorithms = _check_algorithms(algorithms)
        _check_key(key, self._algorithms)
        if not 0 <= leeway <= 30:  # noqa: PLR2004 - RFC 7519 section 4.1.4: "a few minutes" is too much
            msg = f"JWTAuth(leeway=...) takes 0 to 30 seconds, got {leeway!r}"
            raise ConfigError(msg)
        self._key = key
        self.sources = check_sources(sources)
        self._audience = audience
        self._issuer = issuer
        self._leeway = leeway
        self._user_claim = user_claim

    def __call__(self, request: UpgradeRequest) -> Principal:
        """Return who the request's token names.

        Raises:
            Refused: 401 with one of three codes; the exact cause is in `why`, for the log.
        """
        credential = request.credential
        if credential is None:
            places = ", ".join(self.sources)
            raise Refused(401, "credential_missing", headers=_CHALLENGE, why=f"looked in {places}")
        claims = self._decode(credential.token)
        expires_at = self._check_times(claims, request.received_at)
        user = self._user(claims)
        return Principal(user, claims=claims, expires_at=expires_at)

    def _decode(self, token: str) -> dict[str, Any]:
        if len(token) > _TOKEN_BYTES:
            _refuse(f"the token is {len(token)} bytes, over {_TOKEN_BYTES}")
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key,
                algorithms=list(self._algorithms),
                audience=self._audience,
                issuer=self._issuer,
                options={
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "verify_sub": False,
                    "verify_aud": self._audience is not None,
                    "enforce_minimum_key_length": True,
                },
            )
        except jwt.InvalidAudienceError:
            why = f"aud is not {self._audience!r}"
        except Exception as error:
            # PyJWT lets UnicodeError out too. The class says enough; the text may quote the token.
            why = type(error).__name__
        else:
            return self._check_audience(claims)
        # Outside of `except`: an exception's context would hold the token.
        return _refuse(why)

    def _check_audience(self, claims: dict[str, Any]) -> dict[str, Any]:
        if self._audience is None and "aud" in claims:
            # RFC 7519 section 4.1.3: who is not named by aud must reject the token.
            _refuse("the token has an aud, and JWTAuth no audience=")
        return claims

    def _check_times(self, claims: dict[str, Any], now: float) -> float:
        expires = _number(claims, "exp")
        if expires is None:
            _refuse("exp is missing")
        if now >= expires + self._leeway:
            late = now - expires
            why = f"expired {late:.0f} s ago (clock skew? leeway is {self._leeway:g} s)"
            raise Refused(401, "credential_expired", headers=_CHALLENGE, why=why)
        not_before = _number(claims, "nbf")
        if not_before is not None and now < not_before - self._leeway:
            _refuse(f"not valid for another {not_before - now:.0f} s (nbf)")
        # Accepted within the leeway: then the leeway is what it has.
        return expires if expires > now else expires + self._leeway

    def _user(self, claims: dict[str, Any]) -> str:
        user = claims.get(self._user_claim)
        if isinstance(user, int) and not isinstance(user, bool):
            user = str(user)
        if not isinstance(user, str) or not is_name(user):
            _refuse(f"{self._user_claim} is {type(user).__name__}, no user id")
        return user

    def __repr__(self) -> str:
        return f"JWTAuth({', '.join(self._algorithms)} in {', '.join(self.sources)})"


def _refuse(why: str) -> NoReturn:
    raise Refused(401, "credential_refused", headers=_CHALLENGE, why=f"token_invalid: {why}")


def _number(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e15:  # noqa: PLR2004
        _refuse(f"{name} is no number (RFC 7519 section 2, NumericDate)")
    return float(value)


def _check_algorithms(algorithms: Sequence[str]) -> tuple[str, ...]:
    given = (algorithms,) if isinstance(algorithms, str) else tuple(algorithms)
    if not given:
        msg = "JWTAuth needs algorithms=, for example algorithms=['HS256']"
        raise ConfigError(msg)
    if not any(family.issuperset(given) for family in _FAMILIES):
        families = "; ".join(", ".join(sorted(family)) for family in _FAMILIES)
        msg = f"JWTAuth(algorithms=...) takes names of one family, got {list(given)}: {families}"
        raise ConfigError(msg)
    return given


def _check_key(key: str | bytes, algorithms: tuple[str, ...]) -> None:
    if not isinstance(key, (str, bytes)):
        msg = f"JWTAuth(key) takes str or bytes, got {type(key).__name__}; is the variable set?"
        raise ConfigError(msg)
    needed = max(_HMAC_BYTES.get(name, 0) for name in algorithms)
    size = len(key.encode() if isinstance(key, str) else key)
    if size < max(needed, 1):
        msg = (
            f"JWTAuth: the key has {size} bytes, {'/'.join(algorithms)} needs {max(needed, 1)} "
            "(RFC 7518 section 3.2); make one with secrets.token_bytes"
        )
        raise ConfigError(msg)
    for name in algorithms:
        try:
            jwt.get_algorithm_by_name(name).prepare_key(key)
        except Exception as error:
            why = type(error).__name__
        else:
            continue
        msg = f"JWTAuth: the key is none for {name} ({why})"
        raise ConfigError(msg)
