"""Reading what an app's callables said: anything but a clear yes is a no, a strange one a 500."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ws_middleware.types import Granted, Principal, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ws_middleware.errors import Refused

__all__ = ["AuthenticatorError", "not_allowed", "read_verdict", "refusal_of"]


class AuthenticatorError(TypeError):
    """An authenticator returned what is no verdict."""


def read_verdict(verdict: object) -> Granted | Refusal:
    """Return the principal with the headers for the 101, or a 401 for nobody.

    Raises:
        AuthenticatorError: it is none of the types an authenticator may return. `True` and `False`
            are not either: which user would `True` be?
        ValueError, TypeError: the id is no name.
    """
    headers: tuple[tuple[str, str], ...] = ()
    parameters: Mapping[str, Any] | None = None
    if isinstance(verdict, Granted):
        headers, parameters = tuple(verdict.headers), verdict.path_params
        verdict = verdict.principal
    if verdict is None or verdict == "":
        return Refusal(401, "credential_refused", "log in first", "the authenticator knows nobody")
    if isinstance(verdict, Principal):
        return Granted(verdict, headers, parameters)
    if isinstance(verdict, (str, int)) and not isinstance(verdict, bool):
        return Granted(Principal(str(verdict)), headers, parameters)
    msg = (
        f"returned {verdict!r}; an authenticator returns a Principal, Granted, str, int, or None "
        "for nobody, or raises Refused"
        if isinstance(verdict, bool)
        else f"returned a {type(verdict).__name__}; an authenticator returns a Principal, Granted, "
        "str, int, or None for nobody, or raises Refused"
    )
    raise AuthenticatorError(msg)


_DETAILS = {
    "credential_missing": "a credential is needed",
    "credential_expired": "the credential has expired",
    "credential_refused": "the credential was refused",
    "login_required": "log in first",
}


def refusal_of(refused: Refused) -> Refusal:
    """Return the answer that a raised `Refused` asks for."""
    detail = _DETAILS.get(refused.code, "refused")
    if refused.code == "credential_missing" and refused.why:
        detail = f"{detail}; {refused.why}"  # the places are no secret, and the client needs them
    return Refusal(
        refused.status,
        refused.code,
        detail,
        refused.why,
        headers=refused.headers,
        body=refused.body or None,
    )


def not_allowed(user_id: str) -> Refusal:
    """Return the answer where `authorize` did not say `True`."""
    why = f"authorize did not return True for user {user_id!r}"
    return Refusal(403, "not_allowed", "you may not connect here", why)
