"""The tables of docs/ say what the code says: no row too many, none missing, no default wrong."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from tests.docs.pages import PAGES, ROOT, Table, read_tables
from tests.support import CLOSE, TEXT, frame
from ws_middleware import JWTAuth, Limits, WebSockets, errors, testing
from ws_middleware.config import (
    DEFAULT_HEARTBEAT,
    DEFAULT_LIMITS,
    EffectivePolicy,
    Heartbeat,
    Policy,
    ServerLimits,
)
from ws_middleware.core.framing import Failed, Framing
from ws_middleware.settings import Settings, resolve_policy
from ws_middleware.variables import known_variables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SETTINGS = read_tables(ROOT / "docs" / "settings.md")
ERRORS = read_tables(ROOT / "docs" / "errors.md")
TESTING = read_tables(ROOT / "docs" / "testing.md")

#: Every module of the package, parsed.
MODULES = {
    str(path.relative_to(ROOT / "ws_middleware")): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "ws_middleware").rglob("*.py"))
}


def default_of(cell: str) -> Any:
    """The value in the first ticks of a cell, which may go on with a unit."""
    return ast.literal_eval(cell.partition("`")[0])


# --- docs/settings.md ----------------------------------------------------------------------------


def test_every_setting_of_an_app_is_listed_and_no_other() -> None:
    own = inspect.signature(WebSockets).parameters
    keywords = {name for name, each in own.items() if each.kind is each.KEYWORD_ONLY}
    assert set(SETTINGS["Settings of an app"].column("setting")) == keywords | set(
        Policy.__annotations__
    )


def test_what_a_route_may_set_is_marked() -> None:
    rows = SETTINGS["Settings of an app"].by("setting", "on")
    marked = {name for name, row in rows.items() if "route" in row["on"]}
    assert marked == set(Policy.__annotations__)


def test_the_settings_of_a_route_only_are_those_of_its_signature() -> None:
    parameters = inspect.signature(WebSockets.route).parameters
    table = SETTINGS["Settings of a route only"].by("setting", "default")
    assert set(table) == set(parameters) - {"self", "policy"}
    for name, row in table.items():
        check_default(row["default"], parameters[name].default)


def check_default(cell: str, default: object) -> None:
    if default is inspect.Parameter.empty:
        assert cell == "must be given"
    else:
        assert default_of(cell) == default


def effective(name: str) -> object:
    """The default that a route has in the end."""
    settings = Settings({"auth": lambda _: None})
    if name in {each.name for each in fields(EffectivePolicy)}:
        return getattr(resolve_policy(settings, {}, "here"), name)
    if hasattr(settings, name):
        return getattr(settings, name)
    return settings.threads(name)


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        (name, row["default"])
        for name, row in SETTINGS["Settings of an app"].by("setting", "default").items()
    ],
)
def test_every_default_of_an_app_is_right(name: str, cell: str) -> None:
    groups: dict[str, tuple[str, object]] = {
        "limits": ("[`Limits()`](#limits)", DEFAULT_LIMITS),
        "heartbeat": ("[`Heartbeat()`](#heartbeat)", DEFAULT_HEARTBEAT),
        "server_limits": ("[`ServerLimits()`](#serverlimits)", ServerLimits()),
    }
    if name == "auth":
        assert cell == "none: must be given"
    elif name in groups:
        assert (cell, effective(name)) == groups[name]
    else:
        assert default_of(cell) == effective(name)


@pytest.mark.parametrize(
    ("kind", "defaults"),
    [(Limits, DEFAULT_LIMITS), (ServerLimits, ServerLimits()), (Heartbeat, DEFAULT_HEARTBEAT)],
)
def test_every_field_is_listed_with_its_type_default_and_variable(
    kind: type[Limits | ServerLimits | Heartbeat], defaults: object
) -> None:
    table = SETTINGS[kind.__name__].by("field", "takes", "default", "variable")
    assert list(table) == [field.name for field in fields(kind)]
    variables = {name: variable for variable, name in known_variables().items()}
    group = {Limits: "limits", ServerLimits: "server_limits", Heartbeat: "heartbeat"}[kind]
    for field in fields(kind):
        row = table[field.name]
        assert row["takes"] == field.type
        assert default_of(row["default"]) == getattr(defaults, field.name)
        assert (" s" in row["default"]) == (field.type == "float"), f"{field.name}: the unit"
        is_for_code = field.name in {"app_ping", "app_pong"}
        assert row["variable"] == ("" if is_for_code else variables[group, field.name])


def test_what_a_size_is_in_kib_and_mib_is_right() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    sizes = re.findall(r"`([\d_]+)` \((\d+) ([KM])iB\)", text)
    assert len(sizes) >= 4
    for exact, number, unit in sizes:
        assert int(exact) == int(number) * 1024 ** {"K": 1, "M": 2}[unit]


def test_exactly_the_variables_that_mean_something_are_named() -> None:
    named = set(re.findall(r"`(WSM_[A-Z_]+[A-Z])`", (ROOT / "docs" / "settings.md").read_text()))
    assert named == set(known_variables())


def test_every_variable_is_beside_its_setting() -> None:
    for name, row in SETTINGS["Settings of an app"].by("setting", "variable").items():
        variable = f"WSM_{name.upper()}"
        assert row["variable"] == (variable if variable in known_variables() else row["variable"])
        assert row["variable"] in {"", "one each", variable}


@pytest.mark.parametrize(
    ("function", "heading"),
    [
        (JWTAuth, "Authenticators"),
        (WebSockets.upgrade, "upgrade"),
        (WebSockets.listen, "listen"),
        (WebSockets.close, "close"),
        (WebSockets.pause, "pause"),
    ],
)
def test_the_arguments_of_a_call_are_listed_with_their_defaults(
    function: Callable[..., object], heading: str
) -> None:
    parameters = dict(inspect.signature(function).parameters)
    parameters.pop("self", None)
    parameters.pop("policy", None)  # has a table of its own
    table = SETTINGS[heading].by("setting", "default")
    assert list(table) == list(parameters)
    for name, parameter in parameters.items():
        check_default(table[name]["default"], parameter.default)


# --- docs/errors.md ------------------------------------------------------------------------------


def calls(*names: str) -> Iterator[tuple[str, list[ast.expr]]]:
    """The arguments of every call of one of these names, with the module it is in."""
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = node.func
                name = called.attr if isinstance(called, ast.Attribute) else None
                name = called.id if isinstance(called, ast.Name) else name
                if name in names:
                    yield module, node.args


def constants(arguments: list[ast.expr]) -> list[object]:
    """The leading arguments, as far as they are constants."""
    found: list[object] = []
    for each in arguments:
        if not isinstance(each, ast.Constant):
            break
        found.append(each.value)
    return found


def refusals() -> dict[tuple[int, str], set[str]]:
    """Every (status, code) that the code can answer with, and the modules that do."""
    default = inspect.signature(errors.Refused).parameters
    found = {(default["status"].default, default["code"].default): {"errors.py"}}
    for module, arguments in calls("Refusal", "Refused", *(name for _, name in PASSED_ON)):
        if module == "net/asgi_host.py":  # an ASGI app's own answers, as uvicorn gives them
            continue
        match constants(arguments):
            case [int(status), str(code), *_]:
                found.setdefault((status, code), set()).add(module)
            case _:
                assert handed_on(module, arguments), f"{module}: a refusal without a literal code"
    return found


#: Functions that make a refusal of a status and a code that their callers say, by module.
PASSED_ON = {("wsgi.py", "_give_up")}


def handed_on(module: str, arguments: list[ast.expr]) -> bool:
    """Whether status, or status and code, are not ours, or are those of a call that counts."""
    said = [ast.unparse(each) for each in arguments[:2]]
    if module.startswith("testing/"):  # a refusal as a client sees it
        return True
    return (module, said) in [
        ("gate/verdict.py", ["refused.status", "refused.code"]),  # a raised Refused's own words
        ("gate/auth/app.py", ["status", "'app_refused'"]),  # the app's own answer
        *((module, ["status", "code"]) for module, _ in PASSED_ON),
    ]


def test_exactly_the_refusals_of_the_code_are_listed() -> None:
    table = ERRORS["Refusals"].by("code", "status")
    # "403, or the app's own": the first is the one that is in the code.
    listed = {(int(row["status"].partition(",")[0]), code) for code, row in table.items()}
    assert listed == set(refusals())


def test_how_a_refusal_is_said_as_a_close_is_right() -> None:
    table = ERRORS["Refusals"].by("code", "as a close")
    for (status, code), modules in refusals().items():
        # Before there is a policy, where the socket cannot be had, or as a Django view's answer.
        always_http = all(
            module.startswith("core/") or module in {"gate/upgrade.py", "wsgi.py", "django.py"}
            for module in modules
        )
        shown = table[code]["as a close"].partition(",")[0]
        assert shown == ("HTTP" if always_http else str(4000 + status))


def retry_after() -> dict[str, int]:
    """The seconds of Retry-After, by code."""
    found: dict[str, int] = {}
    for tree in MODULES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and len(code := constants(node.args)) > 1:
                for keyword in node.keywords:
                    if keyword.arg == "retry_after" and isinstance(keyword.value, ast.Constant):
                        found[str(code[1])] = int(str(keyword.value.value))
    return found


def test_when_to_come_back_is_what_retry_after_says() -> None:
    table = ERRORS["Refusals"].by("code", "again?")
    shown = {
        code: int(found[1])
        for code, row in table.items()
        if (found := re.search(r"\((\d+) s\)", row["again?"]))
    }
    assert shown == retry_after()


def closes() -> set[tuple[int, str]]:
    """Every close code that we choose ourselves, with its reason."""
    found: set[tuple[int, str]] = set()
    # `close` of a link or a sidecar, the end that a session reports of itself, and what many are
    # closed with.
    for _, arguments in calls("close", "Closed", "Close"):
        match constants(arguments):
            case [int(code), str(reason), *_]:
                found.add((code, reason))
    for tree in MODULES.values():
        for node in ast.walk(tree):
            # A code and its reason, assigned together before they are sent.
            if isinstance(node, ast.Assign):
                found.update(pairs(node.value))
    for call in (WebSockets.close, WebSockets.pause):
        default = inspect.signature(call).parameters
        found.add((default["code"].default, default["reason"].default))
    found.update((code, "") for code in protocol_errors())
    return {(code, reason) for code, reason in found if code not in {1005, 1006}}


def pairs(value: ast.expr) -> Iterator[tuple[int, str]]:
    """A code with its reason, or the two that a condition chooses from."""
    if isinstance(value, ast.IfExp):
        yield from pairs(value.body)
        yield from pairs(value.orelse)
    elif isinstance(value, ast.Tuple):
        match constants(value.elts):
            case [int(code), str(reason), *_] if 1000 <= code < 5000:
                yield code, reason


def protocol_errors() -> set[int]:
    """The codes with which the framing answers a peer that breaks a rule."""
    found = set()
    for data in (
        frame(TEXT, b"unmasked", key=None),
        frame(TEXT, rsv=4),
        frame(CLOSE, b"\x03"),
        frame(TEXT, b"\xff"),
        frame(TEXT, b"x" * 11),
    ):
        framing = Framing(Limits(message_size=10, fragments=2).inherit(DEFAULT_LIMITS))
        framing.receive_data(data)
        event = framing.next_event()
        assert isinstance(event, Failed)
        found.add(event.code)
    return found


def test_exactly_the_close_codes_that_we_send_are_listed_with_their_reasons() -> None:
    listed = set()
    for code, row in ERRORS["Close codes"].by("code", "reason").items():
        for reason in re.split(r",? or |, ", row["reason"]):
            listed.add((int(code), "" if reason == "none" else reason.strip("`")))
    assert listed == closes()


def test_exactly_our_exceptions_are_listed_with_what_else_they_are() -> None:
    table = ERRORS["Exceptions"].by("exception", "also a")
    assert set(table) == set(errors.__all__)
    for name, row in table.items():
        kind = getattr(errors, name)
        others = {base.__name__ for base in kind.__bases__} - {"WebSocketError", "Exception"}
        assert row["also a"] == ", ".join(sorted(others))


# --- all pages -----------------------------------------------------------------------------------


def test_the_keywords_of_connect_are_listed_with_their_defaults() -> None:
    table = TESTING["Connect, send, receive"].by("Keyword", "Default")
    parameters = inspect.signature(testing.connect).parameters
    assert list(table) == [name for name in parameters if name not in {"client", "path"}]
    for name, row in table.items():
        default = parameters[name].default
        if row["Default"] not in {"none", "the client's"}:
            assert ast.literal_eval(row["Default"]) == default
        else:
            assert not default


def test_what_a_test_may_set_of_a_fake_control_is_listed() -> None:
    table = TESTING["asgiref"].column("Of a FakeControl")
    assert table == [name for name in vars(testing.FakeControl()) if not name.startswith("_")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    words = re.sub(r"```.*?```|<!--.*?-->", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", words):
        path, _, anchor = target.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", each).lower().replace(" ", "-") for each in headings}
            assert anchor in anchors, f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for named in re.findall(r"`make ([a-z]+)", page.read_text()):
        assert named in targets


def test_a_table_is_read_as_it_is_rendered(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `b`\n\n| x | y |\n| --- | --- |\n| `a` | `int \\| None` |\n")
    table = read_tables(page)["A b"]
    assert table == Table("A b", ("x", "y"), (("`a`", "`int | None`"),))
    assert table.by("x", "y") == {"a": {"x": "a", "y": "int | None"}}
