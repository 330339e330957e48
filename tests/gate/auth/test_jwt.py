from __future__ import annotations

import base64
import hmac
import json
import traceback
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gate.upgrades import upgrade
from ws_middleware.errors import ConfigError, Refused
from ws_middleware.gate.auth.jwt import JWTAuth
from ws_middleware.gate.credentials import find_credential
from ws_middleware.types import Credential, Principal

#: In a year when the machine that runs this never was: only `received_at` can make it true.
NOW = 1_000_000_000
KEY = "k" * 32
HS256 = JWTAuth(KEY, algorithms=["HS256"])
CLAIMS: dict[str, Any] = {"sub": "ann", "exp": NOW + 60}

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def public(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
    encoding: serialization.Encoding = serialization.Encoding.PEM,
    form: serialization.PublicFormat = serialization.PublicFormat.SubjectPublicKeyInfo,
) -> bytes:
    return key.public_key().public_bytes(encoding, form)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forge(
    header: object, claims: object = CLAIMS, key: bytes = KEY.encode(), digest: str = "sha256"
) -> str:
    """Return a token made by hand, whatever PyJWT thinks of it."""
    parts = [
        b64(each if isinstance(each, bytes) else json.dumps(each).encode())
        for each in (header, claims)
    ]
    signed = ".".join(parts)
    return f"{signed}.{b64(hmac.new(key, signed.encode(), digest).digest())}"


def token(**claims: object) -> str:
    """Return a token that is right but for `claims`; `None` drops one."""
    given = {name: value for name, value in (CLAIMS | claims).items() if value is not None}
    return forge({"alg": "HS256", "typ": "JWT"}, given)


def ask(auth: JWTAuth, shown: str, now: float = NOW) -> Principal:
    request = upgrade(received_at=now)
    object.__setattr__(request, "credential", Credential(shown, "header"))
    return auth(request)


def refused(auth: JWTAuth, shown: str, now: float = NOW) -> Refused:
    with pytest.raises(Refused) as caught:
        ask(auth, shown, now)
    refusal = caught.value
    assert refusal.status == 401
    assert refusal.headers == (("WWW-Authenticate", "Bearer"),)
    assert refusal.body == b""
    return refusal


def told(error: BaseException) -> str:
    """All that an exception and those behind it, shown or suppressed, can put into a log."""
    texts = ["".join(traceback.format_exception(error))]
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if each is not None:
            texts += [str(each), repr(each), repr(each.args), repr(vars(each))]
            pending += [each.__cause__, each.__context__]
    return "\n".join(texts)


# --- a token that is right -----------------------------------------------------------------------


def test_a_right_token_names_its_user() -> None:
    principal = ask(HS256, token(role="admin"))
    assert principal.id == "ann"
    assert principal.claims == {**CLAIMS, "role": "admin"}
    assert principal.expires_at == NOW + 60
    assert principal.is_authenticated


def test_the_token_is_taken_from_where_the_gate_put_it() -> None:
    request = upgrade(f"/ws?token={token()}", received_at=NOW)
    assert HS256(find_credential(request, HS256.sources)).id == "ann"


@pytest.mark.parametrize(
    ("algorithm", "private", "key"),
    [
        pytest.param("HS256", "k" * 32, "k" * 32, id="HS256-text"),
        pytest.param("HS256", b"k" * 32, b"k" * 32, id="HS256-bytes"),
        pytest.param("HS384", "k" * 48, "k" * 48, id="HS384"),
        pytest.param("HS512", "k" * 64, "k" * 64, id="HS512"),
        pytest.param("RS256", RSA_KEY, public(RSA_KEY), id="RS256"),
        pytest.param("PS256", RSA_KEY, public(RSA_KEY).decode(), id="PS256-text"),
        pytest.param("ES256", EC_KEY, public(EC_KEY), id="ES256"),
        pytest.param("EdDSA", ED_KEY, public(ED_KEY), id="EdDSA"),
    ],
)
def test_each_family(algorithm: str, private: Any, key: str | bytes) -> None:
    auth = JWTAuth(key, algorithms=[algorithm])
    signed = jwt.encode(CLAIMS, private, algorithm=algorithm)
    assert ask(auth, signed).id == "ann"
    broken = signed[:-8] + ("A" * 8 if signed[-8:] != "A" * 8 else "B" * 8)
    assert refused(auth, broken).code == "credential_refused"


def test_several_algorithms_of_one_family() -> None:
    auth = JWTAuth("k" * 64, algorithms=("HS256", "HS512"))
    for digest, name in (("sha256", "HS256"), ("sha512", "HS512")):
        assert ask(auth, forge({"alg": name}, key=b"k" * 64, digest=digest)).id == "ann"
    other = forge({"alg": "HS384"}, key=b"k" * 64, digest="sha384")
    assert refused(auth, other).why == "token_invalid: InvalidAlgorithmError"


# --- the header ----------------------------------------------------------------------------------

PUBLIC_FORMS = [
    pytest.param(public(RSA_KEY), id="pem"),
    pytest.param(public(RSA_KEY).strip(), id="pem-stripped"),
    pytest.param(public(RSA_KEY).replace(b"\n", b"\r\n"), id="pem-crlf"),
    pytest.param(public(RSA_KEY, form=serialization.PublicFormat.PKCS1), id="pem-pkcs1"),
    pytest.param(public(RSA_KEY, serialization.Encoding.DER), id="der"),
    pytest.param(
        public(RSA_KEY, serialization.Encoding.DER, serialization.PublicFormat.PKCS1),
        id="der-pkcs1",
    ),
    pytest.param(
        public(RSA_KEY, serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH),
        id="openssh",
    ),
]


@pytest.mark.parametrize("secret", PUBLIC_FORMS)
@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_a_public_key_is_never_taken_for_a_secret(secret: bytes, digest: str) -> None:
    auth = JWTAuth(public(RSA_KEY), algorithms=["RS256"])
    forged = forge({"alg": f"HS{digest[3:]}", "typ": "JWT"}, key=secret, digest=digest)
    assert refused(auth, forged).why == "token_invalid: InvalidAlgorithmError"


@pytest.mark.parametrize("secret", PUBLIC_FORMS)
def test_an_hmac_under_the_right_name_is_no_signature(secret: bytes) -> None:
    for algorithm in ("RS256", "PS256"):
        auth = JWTAuth(public(RSA_KEY), algorithms=[algorithm])
        forged = forge({"alg": algorithm}, key=secret)
        assert refused(auth, forged).why == "token_invalid: InvalidSignatureError"


@pytest.mark.parametrize(
    "alg",
    [
        pytest.param("none", id="none"),
        pytest.param("None", id="None"),
        pytest.param("NONE", id="NONE"),
        pytest.param("nOnE", id="nOnE"),
        pytest.param("", id="empty"),
        pytest.param("hs256", id="lower-case"),
        pytest.param("HS256 ", id="blank-behind"),
        pytest.param("RS256", id="another-family"),
        pytest.param(["HS256"], id="list"),
        pytest.param({"HS256": 1}, id="dict"),
        pytest.param(256, id="number"),
        pytest.param(True, id="true"),
        pytest.param(None, id="null"),
    ],
)
def test_an_algorithm_that_was_not_named_is_refused(alg: object) -> None:
    for shown in (forge({"alg": alg}), forge({"alg": alg}).rpartition(".")[0] + "."):
        refusal = refused(HS256, shown)
        assert refusal.code == "credential_refused"
        assert refusal.why.startswith("token_invalid: ")


def test_a_header_without_alg_is_refused() -> None:
    assert refused(HS256, forge({"typ": "JWT"})).code == "credential_refused"


@pytest.mark.parametrize(
    "header",
    [
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/cert"},
        {"jwk": {"kty": "oct", "k": b64(b"e" * 32)}},
        {"kid": "../../dev/null"},
        {"x5c": ["AAAA"]},
    ],
)
def test_a_key_in_the_header_changes_nothing(header: dict[str, object]) -> None:
    assert ask(HS256, forge({"alg": "HS256", **header})).id == "ann"
    evil = forge({"alg": "HS256", **header}, key=b"e" * 32)
    assert refused(HS256, evil).why == "token_invalid: InvalidSignatureError"


def test_a_critical_extension_nobody_knows_is_refused() -> None:
    critical = forge({"alg": "HS256", "crit": ["x"], "x": 1})
    assert refused(HS256, critical).code == "credential_refused"


# --- times ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exp", "expires_at"),
    [
        pytest.param(NOW + 60, NOW + 60, id="ahead"),
        pytest.param(NOW + 0.5, NOW + 0.5, id="half-a-second-ahead"),
        pytest.param(NOW, NOW + 10, id="this-moment-has-the-leeway"),
        pytest.param(NOW - 9.5, NOW + 0.5, id="past-within-the-leeway"),
        pytest.param(999_999_999_999_999, 999_999_999_999_999, id="far-ahead"),
    ],
)
def test_how_long_a_token_lasts(exp: float, expires_at: float) -> None:
    assert ask(HS256, token(exp=exp)).expires_at == expires_at


@pytest.mark.parametrize(
    ("exp", "code", "why"),
    [
        pytest.param(
            NOW - 10,
            "credential_expired",
            "expired 10 s ago (clock skew? leeway is 10 s)",
            id="past-the-leeway",
        ),
        pytest.param(
            0,
            "credential_expired",
            f"expired {NOW} s ago (clock skew? leeway is 10 s)",
            id="the-epoch",
        ),
        pytest.param(
            -1,
            "credential_expired",
            f"expired {NOW + 1} s ago (clock skew? leeway is 10 s)",
            id="negative",
        ),
        pytest.param(None, "credential_refused", "token_invalid: exp is missing", id="missing"),
    ],
)
def test_an_exp_that_has_passed_or_is_missing(exp: float | None, code: str, why: str) -> None:
    refusal = refused(HS256, token(exp=exp))
    assert (refusal.code, refusal.why) == (code, why)


def test_exp_null_is_missing() -> None:
    shown = forge({"alg": "HS256"}, {"sub": "ann", "exp": None})
    assert refused(HS256, shown).why == "token_invalid: exp is missing"


@pytest.mark.parametrize("name", ["exp", "nbf"])
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(str(NOW + 60), id="text"),
        pytest.param("", id="empty-text"),
        pytest.param(True, id="true"),
        pytest.param(False, id="false"),
        pytest.param([NOW + 60], id="list"),
        pytest.param({"at": NOW}, id="dict"),
        pytest.param(10**15, id="huge"),
        pytest.param(10**400, id="larger-than-a-float"),
        pytest.param(-(10**400), id="huge-and-negative"),
        pytest.param(float("nan"), id="nan"),
        pytest.param(float("inf"), id="infinity"),
    ],
)
def test_a_time_that_is_no_number_is_refused(name: str, value: object) -> None:
    refusal = refused(HS256, token(**{name: value}))
    assert refusal.code == "credential_refused"
    assert refusal.why == f"token_invalid: {name} is no number (RFC 7519 section 2, NumericDate)"


@pytest.mark.parametrize(
    ("nbf", "why"),
    [
        pytest.param(NOW - 60, None, id="past"),
        pytest.param(NOW + 10, None, id="within-the-leeway"),
        pytest.param(
            NOW + 11, "token_invalid: not valid for another 11 s (nbf)", id="past-the-leeway"
        ),
    ],
)
def test_not_before(nbf: float, why: str | None) -> None:
    if why is None:
        assert ask(HS256, token(nbf=nbf)).id == "ann"
    else:
        assert refused(HS256, token(nbf=nbf)).why == why


def test_iat_is_not_asked() -> None:
    assert ask(HS256, token(iat=NOW + 10_000)).id == "ann"


def test_time_comes_from_the_request_alone() -> None:
    shown = token(exp=NOW, nbf=NOW - 10)
    assert ask(HS256, shown, now=NOW - 20).id == "ann"
    assert ask(HS256, shown, now=NOW + 9.9).id == "ann"
    assert refused(HS256, shown, now=NOW - 20.1).code == "credential_refused"
    assert refused(HS256, shown, now=NOW + 10).code == "credential_expired"


def test_the_leeway_can_be_none() -> None:
    strict = JWTAuth(KEY, algorithms=["HS256"], leeway=0)
    assert ask(strict, token(exp=NOW + 0.1)).expires_at == NOW + 0.1
    assert refused(strict, token(exp=NOW)).why == "expired 0 s ago (clock skew? leeway is 0 s)"


# --- who and for whom ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sub", "expected"),
    [
        pytest.param("ann", "ann", id="text"),
        pytest.param("\u65e5 \xe9", "\u65e5 \xe9", id="any-text"),
        pytest.param(7, "7", id="number"),
        pytest.param(0, "0", id="zero"),
        pytest.param(-1, "-1", id="negative"),
        pytest.param("x" * 255, "x" * 255, id="255-bytes"),
    ],
)
def test_a_sub_that_is_an_id(sub: object, expected: str) -> None:
    assert ask(HS256, token(sub=sub)).id == expected


@pytest.mark.parametrize(
    ("sub", "kind"),
    [
        pytest.param(None, "NoneType", id="missing"),
        pytest.param("", "str", id="empty"),
        pytest.param(True, "bool", id="true"),
        pytest.param(1.0, "float", id="float"),
        pytest.param(["ann"], "list", id="list"),
        pytest.param({"id": "ann"}, "dict", id="dict"),
        pytest.param("a\nb", "str", id="line-feed"),
        pytest.param("a\x00", "str", id="nul"),
        pytest.param("a\x9f", "str", id="c1-control"),
        pytest.param("\ud800", "str", id="lone-surrogate"),
        pytest.param("x" * 256, "str", id="256-bytes"),
        pytest.param(10**300, "str", id="300-digits"),
    ],
)
def test_a_sub_that_is_no_id_is_refused(sub: object, kind: str) -> None:
    refusal = refused(HS256, token(sub=sub))
    assert refusal.code == "credential_refused"
    assert refusal.why == f"token_invalid: sub is {kind}, no user id"


def test_another_claim_can_hold_the_user() -> None:
    auth = JWTAuth(KEY, algorithms=["HS256"], user_claim="uid")
    assert ask(auth, token(uid=7)).id == "7"
    assert refused(auth, token()).why == "token_invalid: uid is NoneType, no user id"


@pytest.mark.parametrize(
    ("audience", "aud", "why"),
    [
        pytest.param("app", "app", None, id="named"),
        pytest.param("app", ["other", "app"], None, id="one-of-several"),
        pytest.param(["app", "web"], "web", None, id="one-of-ours"),
        pytest.param("app", "other", "aud is not 'app'", id="another"),
        pytest.param("app", ["other"], "aud is not 'app'", id="others"),
        pytest.param("app", [], "MissingRequiredClaimError", id="nobody"),
        pytest.param("app", "application", "aud is not 'app'", id="longer"),
        pytest.param("app", None, "MissingRequiredClaimError", id="missing"),
        pytest.param("app", 5, "aud is not 'app'", id="number"),
        pytest.param(None, None, None, id="neither"),
        pytest.param(
            None, "app", "the token has an aud, and JWTAuth no audience=", id="only-the-token"
        ),
        pytest.param(
            None, [], "the token has an aud, and JWTAuth no audience=", id="only-the-token-empty"
        ),
    ],
)
def test_audience(audience: str | list[str] | None, aud: object, why: str | None) -> None:
    auth = JWTAuth(KEY, algorithms=["HS256"], audience=audience)
    if why is None:
        assert ask(auth, token(aud=aud)).id == "ann"
    else:
        assert refused(auth, token(aud=aud)).why == f"token_invalid: {why}"


@pytest.mark.parametrize(
    ("issuer", "iss", "right"),
    [
        pytest.param("https://id", "https://id", True, id="named"),
        pytest.param(["https://id", "https://b"], "https://b", True, id="one-of-ours"),
        pytest.param("https://id", "https://evil", False, id="another"),
        pytest.param("https://id", "https://id/", False, id="longer"),
        pytest.param("https://id", ["https://id"], False, id="list"),
        pytest.param("https://id", None, False, id="missing"),
        pytest.param(None, "https://any", True, id="not-asked"),
    ],
)
def test_issuer(issuer: str | list[str] | None, iss: object, right: bool) -> None:  # noqa: FBT001 - a row
    auth = JWTAuth(KEY, algorithms=["HS256"], issuer=issuer)
    if right:
        assert ask(auth, token(iss=iss)).id == "ann"
    else:
        assert refused(auth, token(iss=iss)).code == "credential_refused"


# --- strange tokens ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param("", id="empty"),
        pytest.param("SECRET", id="one-part"),
        pytest.param("SECRET.SECRET", id="two-parts"),
        pytest.param("SECRET.SECRET.SECRET", id="no-base64"),
        pytest.param("SECRET.SECRET.SECRET.SECRET.SECRET", id="five-parts-of-a-jwe"),
        pytest.param("...", id="dots"),
        pytest.param("SECRET\ud800.a.b", id="lone-surrogate"),
        pytest.param("SECRET\xe9.a.b", id="not-ascii"),
        pytest.param("SECRET\x00.a.b", id="nul"),
        pytest.param(forge(b"[]"), id="header-a-list"),
        pytest.param(forge(b"null"), id="header-null"),
        pytest.param(forge(b"\xff"), id="header-not-utf-8"),
        pytest.param(forge(b"[" * 3000), id="header-nested"),
        pytest.param(forge({"alg": "HS256"}, b"[]"), id="payload-a-list"),
        pytest.param(forge({"alg": "HS256"}, b'"SECRET"'), id="payload-a-text"),
        pytest.param(forge({"alg": "HS256"}, b"5"), id="payload-a-number"),
        pytest.param(forge({"alg": "HS256"}, b"SECRET"), id="payload-no-json"),
        pytest.param(forge({"alg": "HS256"}, b"\xffSECRET"), id="payload-not-utf-8"),
        pytest.param(forge({"alg": "HS256"}, b"[" * 3000), id="payload-nested"),
        pytest.param(forge({"alg": "HS256"}, b'{"exp":' + b"9" * 5000 + b"}"), id="5000-digits"),
        pytest.param(forge({"alg": "HS256"}, key=b"SECRET"), id="another-key"),
        pytest.param(token()[:-1], id="cut"),
        pytest.param(f"Bearer {token()}", id="scheme-in-it"),
        pytest.param(token(aud="SECRET"), id="audience"),
        pytest.param(token(exp="SECRET"), id="exp"),
        pytest.param(token(sub=["SECRET"]), id="sub"),
        pytest.param(token(exp=NOW - 100), id="expired"),
        pytest.param(token(nbf=NOW + 100), id="not-yet"),
        pytest.param("SECRET" * 1536, id="9-KiB"),
    ],
)
def test_no_exception_says_a_word_of_the_token(shown: str) -> None:
    for auth in (HS256, JWTAuth(KEY, algorithms=["HS256"], audience="app", issuer="https://id")):
        text = told(refused(auth, shown))
        assert "SECRET" not in text
        for part in shown.split("."):
            assert len(part) < 10 or part not in text


def test_a_long_token_is_not_looked_at() -> None:
    padding = "x" * 5000
    right = token(pad=padding)
    assert 6000 < len(right) <= 8192
    assert ask(HS256, right).id == "ann"
    long = token(pad=padding + "x" * 2000)
    assert refused(HS256, long).why == f"token_invalid: the token is {len(long)} bytes, over 8192"


def test_no_token_at_all_says_where_one_was_looked_for() -> None:
    with pytest.raises(Refused) as caught:
        HS256(upgrade(received_at=NOW))
    refusal = caught.value
    assert (refusal.status, refusal.code) == (401, "credential_missing")
    assert refusal.why == "looked in header, subprotocol, query:token"
    assert refusal.headers == (("WWW-Authenticate", "Bearer"),)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    st.text(max_size=60)
    | st.builds(
        forge,
        st.fixed_dictionaries({"alg": st.just("HS256") | _json}),
        st.dictionaries(st.sampled_from(["sub", "exp", "nbf", "iss", "aud", "iat", "jti"]), _json),
    )
)
def test_any_token_is_a_principal_or_a_refusal(shown: str) -> None:
    try:
        principal = ask(HS256, shown)
    except Refused as refusal:
        assert refusal.status == 401  # noqa: PT017 - it need not raise
    else:
        assert principal.is_authenticated


# --- how it is made ------------------------------------------------------------------------------


@pytest.mark.parametrize(("algorithm", "size"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_has_the_size_of_its_hash(algorithm: str, size: int) -> None:
    for key in ("k" * size, b"k" * size):
        JWTAuth(key, algorithms=[algorithm])
        with pytest.raises(ConfigError) as caught:
            JWTAuth(key[:-1], algorithms=[algorithm])
        assert str(caught.value) == (
            f"JWTAuth: the key has {size - 1} bytes, {algorithm} needs {size} "
            "(RFC 7518 section 3.2); make one with secrets.token_bytes"
        )


def test_of_several_algorithms_the_one_that_needs_most_counts() -> None:
    with pytest.raises(ConfigError, match="the key has 63 bytes, HS256/HS512 needs 64 "):
        JWTAuth("k" * 63, algorithms=["HS256", "HS512"])


def test_a_key_is_measured_in_bytes() -> None:
    JWTAuth("\xe9" * 16, algorithms=["HS256"])


@pytest.mark.parametrize("key", ["", b""])
@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256", "EdDSA"])
def test_an_empty_key_is_a_config_error(key: str | bytes, algorithm: str) -> None:
    with pytest.raises(ConfigError, match=r"^JWTAuth: the key has 0 bytes"):
        JWTAuth(key, algorithms=[algorithm])


@pytest.mark.parametrize(
    "algorithms",
    [
        pytest.param(["none"], id="none"),
        pytest.param(["nOnE"], id="nOnE"),
        pytest.param(["HS256", "none"], id="HS256-and-none"),
        pytest.param(["HS256", "RS256"], id="HS256-and-RS256"),
        pytest.param(["RS256", "ES256"], id="RS256-and-ES256"),
        pytest.param(["ES256", "EdDSA"], id="ES256-and-EdDSA"),
        pytest.param(["hs256"], id="lower-case"),
        pytest.param(["HS1"], id="unknown"),
        pytest.param(["HS256", ""], id="empty-name"),
    ],
)
def test_algorithms_of_no_one_family_are_a_config_error(algorithms: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        JWTAuth("k" * 64, algorithms=algorithms)
    assert str(caught.value) == (
        f"JWTAuth(algorithms=...) takes names of one family, got {algorithms}: "
        "HS256, HS384, HS512; PS256, PS384, PS512, RS256, RS384, RS512; "
        "ES256, ES256K, ES384, ES512, ES521; EdDSA"
    )


def test_there_is_no_default_algorithm() -> None:
    with pytest.raises(TypeError):
        JWTAuth(KEY)  # type: ignore[call-arg]
    with pytest.raises(ConfigError) as caught:
        JWTAuth(KEY, algorithms=[])
    assert str(caught.value) == "JWTAuth needs algorithms=, for example algorithms=['HS256']"


def test_one_algorithm_needs_no_list() -> None:
    assert repr(JWTAuth(KEY, algorithms="HS256")) == (
        "JWTAuth(HS256 in header, subprotocol, query:token)"
    )


@pytest.mark.parametrize("leeway", [-0.1, 30.1, float("nan"), float("inf")])
def test_a_leeway_is_0_to_30_seconds(leeway: float) -> None:
    with pytest.raises(ConfigError) as caught:
        JWTAuth(KEY, algorithms=["HS256"], leeway=leeway)
    assert str(caught.value) == f"JWTAuth(leeway=...) takes 0 to 30 seconds, got {leeway!r}"


def test_an_unknown_source_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"^sources: 'body' is none of "):
        JWTAuth(KEY, algorithms=["HS256"], sources=["body"])


def test_it_never_looks_at_what_a_browser_sends_by_itself() -> None:
    assert JWTAuth.ambient is False
    assert HS256.sources == ("header", "subprotocol", "query:token")


def test_its_repr_does_not_say_the_key() -> None:
    assert KEY not in repr(HS256)


@pytest.mark.parametrize("key", [None, 5, ["k" * 32]])
def test_a_key_that_is_no_text_is_a_config_error(key: Any) -> None:
    with pytest.raises(ConfigError):
        JWTAuth(key, algorithms=["HS256"])


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        pytest.param("HS256", public(RSA_KEY), id="a-public-key-as-secret"),
        pytest.param("RS256", "k" * 64, id="a-secret-as-public-key"),
        pytest.param("RS256", public(EC_KEY), id="a-key-of-another-family"),
        pytest.param("ES256", public(RSA_KEY), id="a-key-of-another-family-ec"),
    ],
)
def test_a_key_that_no_token_can_fit_is_a_config_error(algorithm: str, key: str | bytes) -> None:
    with pytest.raises(ConfigError):
        JWTAuth(key, algorithms=[algorithm])
