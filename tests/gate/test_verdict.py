from __future__ import annotations

from uuid import UUID

import pytest

from ws_middleware.errors import Refused
from ws_middleware.gate.verdict import AuthenticatorError, not_allowed, read_verdict, refusal_of
from ws_middleware.types import Granted, Principal, Refusal

COOKIE = (("Set-Cookie", "a=b"),)
ANN = Principal("ann", claims={"role": "admin"}, expires_at=5.0)
NOBODY = Refusal(401, "credential_refused", "log in first", "the authenticator knows nobody")


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        pytest.param("ann", Granted(Principal("ann")), id="text"),
        pytest.param(7, Granted(Principal("7")), id="number"),
        pytest.param(0, Granted(Principal("0")), id="zero-is-a-user"),
        pytest.param(ANN, Granted(ANN), id="principal"),
        pytest.param(Principal(""), Granted(Principal("")), id="anonymous-said-aloud"),
        pytest.param(Granted("ann", COOKIE), Granted(Principal("ann"), COOKIE), id="granted-text"),
        pytest.param(Granted(7, COOKIE), Granted(Principal("7"), COOKIE), id="granted-number"),
        pytest.param(Granted(ANN, COOKIE), Granted(ANN, COOKIE), id="granted-principal"),
        pytest.param(None, NOBODY, id="none"),
        pytest.param("", NOBODY, id="empty-text"),
        pytest.param(Granted("", COOKIE), NOBODY, id="granted-nobody"),
    ],
)
def test_what_an_authenticator_may_say(verdict: object, expected: Granted | Refusal) -> None:
    assert read_verdict(verdict) == expected


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        pytest.param(True, "returned True", id="true"),
        pytest.param(False, "returned False", id="false"),
        pytest.param(Granted(True), "returned True", id="granted-true"),  # noqa: FBT003 - on purpose
        pytest.param(1.0, "returned a float", id="float"),
        pytest.param(b"ann", "returned a bytes", id="bytes"),
        pytest.param(["ann"], "returned a list", id="list"),
        pytest.param({"id": "ann"}, "returned a dict", id="dict"),
        pytest.param((), "returned a tuple", id="empty-tuple"),
        pytest.param(UUID(int=1), "returned a UUID", id="uuid"),
        pytest.param(object(), "returned a object", id="object"),
        pytest.param(Refused(), "returned a Refused", id="refused-returned-not-raised"),
    ],
)
def test_a_strange_yes_is_a_fault(verdict: object, said: str) -> None:
    with pytest.raises(AuthenticatorError) as caught:
        read_verdict(verdict)
    assert str(caught.value) == (
        f"{said}; an authenticator returns a Principal, Granted, str, int, or None "
        "for nobody, or raises Refused"
    )


@pytest.mark.parametrize("name", [" \n", "a\x00", "x" * 256, "\ud800"])
def test_an_id_that_is_no_name_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=r"^user id must be 1 to 255 bytes of UTF-8"):
        read_verdict(name)


@pytest.mark.parametrize(
    ("refused", "expected"),
    [
        pytest.param(Refused(), Refusal(403, "refused", "refused"), id="default"),
        pytest.param(
            Refused(401, "credential_missing", why="looked in header"),
            Refusal(
                401,
                "credential_missing",
                "a credential is needed; looked in header",
                "looked in header",
            ),
            id="the-places-go-to-the-peer",
        ),
        pytest.param(
            Refused(401, "credential_missing"),
            Refusal(401, "credential_missing", "a credential is needed"),
            id="missing-without-places",
        ),
        pytest.param(
            Refused(401, "credential_refused", why="exp is missing"),
            Refusal(401, "credential_refused", "the credential was refused", "exp is missing"),
            id="why-stays-here",
        ),
        pytest.param(
            Refused(401, "credential_expired", why="expired 5 s ago"),
            Refusal(401, "credential_expired", "the credential has expired", "expired 5 s ago"),
            id="expired",
        ),
        pytest.param(
            Refused(402, "pay_first", headers=[("X-Plan", "free")], body=b"pay", why="w"),
            Refusal(402, "pay_first", "refused", "w", headers=(("X-Plan", "free"),), body=b"pay"),
            id="in-the-apps-own-words",
        ),
    ],
)
def test_a_raised_refused_is_the_answer(refused: Refused, expected: Refusal) -> None:
    assert refusal_of(refused) == expected


def test_who_may_not_is_told_so_without_a_reason() -> None:
    refusal = not_allowed("ann")
    assert refusal == Refusal(
        403,
        "not_allowed",
        "you may not connect here",
        "authorize did not return True for user 'ann'",
    )
