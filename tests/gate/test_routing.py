from __future__ import annotations

from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from werkzeug.exceptions import NotFound
from werkzeug.routing import Map, Rule

from tests.gate.upgrades import upgrade
from ws_middleware.errors import ConfigError
from ws_middleware.gate.routing import PathSet, PathTable, PathTemplate

ID = "f47ac10b-58cc-4372-a567-0e02b2c3d479"


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [
        pytest.param("/ws", "/ws", {}, id="static"),
        pytest.param("/ws", "/ws/", None, id="static-with-slash"),
        pytest.param("/ws", "/WS", None, id="static-in-other-case"),
        pytest.param("/ws", "/ws\n", None, id="static-with-line-feed"),
        pytest.param("/a.b", "/axb", None, id="a-dot-is-a-dot"),
        pytest.param("/a+(b)", "/a+(b)", {}, id="no-regex-in-a-path"),
        pytest.param("/", "/", {}, id="root"),
        pytest.param("/r/<name>", "/r/x", {"name": "x"}, id="flask-bare"),
        pytest.param("/r/{name}", "/r/x", {"name": "x"}, id="starlette-bare"),
        pytest.param("/r/<string:name>", "/r/x", {"name": "x"}, id="flask-string"),
        pytest.param("/r/{name:str}", "/r/x", {"name": "x"}, id="starlette-str"),
        pytest.param("/r/<name>", "/r/a/b", None, id="text-ends-at-a-slash"),
        pytest.param("/r/<name>", "/r/", None, id="text-is-not-empty"),
        pytest.param("/r/<name>", "/r/caf\xe9 \u65e5", {"name": "caf\xe9 \u65e5"}, id="any-text"),
        pytest.param("/r/<int:n>", "/r/007", {"n": 7}, id="flask-int"),
        pytest.param("/r/{n:int}", "/r/42", {"n": 42}, id="starlette-int"),
        pytest.param("/r/<int:n>", "/r/-1", None, id="int-has-no-sign"),
        pytest.param("/r/<int:n>", "/r/1.0", None, id="int-has-no-point"),
        pytest.param("/r/<int:n>", "/r/\u0661", None, id="int-is-ascii"),
        pytest.param("/r/<float:x>", "/r/1.50", {"x": 1.5}, id="flask-float"),
        pytest.param("/r/{x:float}", "/r/0.25", {"x": 0.25}, id="starlette-float"),
        pytest.param("/r/<float:x>", "/r/1", None, id="float-has-a-point"),
        pytest.param("/r/<float:x>", "/r/1e5", None, id="float-has-no-exponent"),
        pytest.param("/r/<float:x>", "/r/nan", None, id="float-is-finite"),
        pytest.param("/r/<path:p>", "/r/a/b/c", {"p": "a/b/c"}, id="flask-path"),
        pytest.param("/r/{p:path}", "/r/a", {"p": "a"}, id="starlette-path"),
        pytest.param("/r/<path:p>", "/r/", None, id="path-is-not-empty"),
        pytest.param("/r/<path:p>", "/r//a", None, id="path-begins-with-no-slash"),
        pytest.param("/r/<path:p>/end", "/r/a/b/end", {"p": "a/b"}, id="path-in-the-middle"),
        pytest.param("/r/<uuid:u>", f"/r/{ID}", {"u": UUID(ID)}, id="flask-uuid"),
        pytest.param("/r/{u:uuid}", f"/r/{ID.upper()}", {"u": UUID(ID)}, id="starlette-uuid"),
        pytest.param("/r/<uuid:u>", f"/r/{ID[:-1]}", None, id="uuid-too-short"),
        pytest.param("/r/<uuid:u>", f"/r/{ID.replace('-', '')}", None, id="uuid-without-hyphens"),
        pytest.param("/<a>/{b:int}", "/x/1", {"a": "x", "b": 1}, id="both-syntaxes-in-one"),
        pytest.param("/<a>-<b>", "/x-y-z", {"a": "x-y", "b": "z"}, id="two-in-one-segment"),
        pytest.param("/r/<name>", f"/r/{'x' * 255}", {"name": "x" * 255}, id="255-bytes"),
        pytest.param("/r/<name>", f"/r/{'x' * 256}", None, id="256-bytes-are-no-name"),
        pytest.param("/r/<name>", f"/r/{chr(233) * 128}", None, id="256-bytes-of-utf-8"),
        pytest.param("/r/<path:p>", f"/r/{'x/' * 128}", None, id="a-path-is-a-name-too"),
        pytest.param("/r/<int:n>", f"/r/{'9' * 256}", None, id="256-digits"),
        pytest.param("/r/<name>", "/r/a\x00", None, id="nul-is-no-name"),
        pytest.param("/r/<name>", "/r/a\nb", None, id="line-feed-is-no-name"),
        pytest.param("/r/<path:p>", "/r/a\x7f/b", None, id="delete-is-no-name"),
        pytest.param("/r/<name>", "/r/\x85", None, id="c1-control-is-no-name"),
        pytest.param("/r/<name>", "/r/\ud800", None, id="lone-surrogate-is-no-name"),
    ],
)
def test_matching(template: str, path: str, expected: dict[str, Any] | None) -> None:
    found = PathTemplate(template).match(path)
    assert found == expected
    if found is not None and expected is not None:
        assert [type(value) for value in found.values()] == [
            type(value) for value in expected.values()
        ]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param("/r/a%20b", "a b", id="blank"),
        pytest.param("/r/caf%C3%A9", "caf\xe9", id="utf-8"),
        pytest.param("/r/caf\xc3\xa9", "caf\xe9", id="utf-8-sent-raw"),
        pytest.param("/r/a+b", "a+b", id="plus-is-a-plus"),
        pytest.param("/r/%252F", "%2F", id="decoded-once"),
        pytest.param("/r/%zz", "%zz", id="no-escape"),
        pytest.param("/r/a%2Fb", None, id="slash-decoded-before-matching"),
        pytest.param("/r/%FF", None, id="invalid-utf-8"),
        pytest.param("/r/%C3", None, id="cut-utf-8"),
        pytest.param("/r/%ED%A0%80", None, id="surrogate-in-utf-8"),
        pytest.param("/r/%C0%AF", None, id="overlong-slash"),
        pytest.param("/r/%00", None, id="nul"),
        pytest.param("/r/%0A", None, id="line-feed"),
    ],
)
def test_a_path_is_decoded_before_it_is_matched(target: str, expected: str | None) -> None:
    found = PathTemplate("/r/<name>").match(upgrade(target).path)
    assert found == (None if expected is None else {"name": expected})


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [
        pytest.param("/r/<int:n>", "/r/1", True, id="its-own"),
        pytest.param("/r/<int:n>", "/r/+1", True, id="int-with-a-sign"),
        pytest.param("/r/<int:n>", "/r/1.0", True, id="int-with-a-point"),
        pytest.param("/r/<int:n>", "/r/ 1\n", True, id="int-between-blanks"),
        pytest.param("/r/<int:n>", "/r/\u0661", True, id="int-in-other-digits"),
        pytest.param("/r/<int:n>", "/r/1/", True, id="slash-at-the-end"),
        pytest.param("/r/<int:n>/", "/r/1", True, id="no-slash-at-the-end"),
        pytest.param("/r/<int:n>", "//r///1", True, id="slashes-too-many"),
        pytest.param("/r/<name>", f"/r/{'x' * 256}", True, id="text-that-is-no-name"),
        pytest.param("/r/<path:p>", "/r/a\x00/b", True, id="path-that-is-no-name"),
        pytest.param("/a.b/<n>", "/a.b/", False, id="parameter-is-not-empty"),
        pytest.param("/a.b/<n>", "/axb/1", False, id="a-dot-is-a-dot"),
        pytest.param("/r/<int:n>", "/r/1/2", False, id="a-part-more"),
        pytest.param("/r/<int:n>", "/R/1", False, id="other-case"),
        pytest.param("/", "//", True, id="root"),
    ],
)
def test_what_a_lenient_router_may_take_for_it(
    template: str,
    path: str,
    expected: bool,  # noqa: FBT001
) -> None:
    assert PathTemplate(template).is_like(path) is expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "ws", "a route's path begins with / and has no ? or #, got 'ws'", id="relative"
        ),
        pytest.param("", "a route's path begins with / and has no ? or #, got ''", id="empty"),
        pytest.param(
            "/ws?x=1", "a route's path begins with / and has no ? or #, got '/ws?x=1'", id="query"
        ),
        pytest.param(
            "/ws#x", "a route's path begins with / and has no ? or #, got '/ws#x'", id="fragment"
        ),
        pytest.param("/<a>/{a}", "/<a>/{a}: the parameter 'a' comes twice", id="parameter-twice"),
    ],
)
def test_a_wrong_path_is_told_in_words(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PathTemplate(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(("text", "kind"), [("/<any:x>", "any"), ("/{x:Number_2}", "Number_2")])
def test_a_converter_that_nobody_knows_is_told_when_it_is_needed(text: str, kind: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PathTemplate(text).check()
    assert str(caught.value) == (
        f"{text}: unknown converter '{kind}'; there are str, string, path, int, float, uuid. One "
        "that a Flask app has in app.url_map.converters works on a route with FlaskAuth, or on a "
        "view, @app.route(..., websocket=True), that returns sockets.upgrade(...)"
    )


def test_a_converter_of_the_hosts_matches_as_the_host_says_and_stays_text() -> None:
    template = PathTemplate("/<pair:x>/<int:n>", {"pair": "[a-z]+-[a-z]+", "int": "-?[0-9]+"})
    template.check()
    assert template.match("/a-b/-1") == {"x": "a-b", "n": "-1"}
    assert template.match("/ab/1") is None


@pytest.mark.parametrize(
    "text",
    [
        "/<room",
        "/room>",
        "/{room",
        "/room}",
        "/<>",
        "/{}",
        "/<int: room>",
        "/<1room>",
        "/<int(min=1):room>",
        "/{room:int:x}",
        "/<caf\xe9>",
        "/<<room>>",
    ],
)
def test_brackets_that_cannot_be_read_are_told_in_words(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PathTemplate(text)
    assert str(caught.value) == (
        f"{text}: cannot read the parameters; write <int:room> or {{room:int}}, or a plain <room>"
    )


def test_parameters_come_in_order() -> None:
    assert PathTemplate("/<b>/{a:int}/x/<c>").parameters == ("b", "a", "c")
    assert PathTemplate("/ws").parameters == ()


def test_the_masked_path_has_a_star_for_each_parameter() -> None:
    assert PathTemplate("/ws/<int:room>/{user}").masked == "/ws/*/*"


def table(*texts: str) -> PathTable[str]:
    made: PathTable[str] = PathTable()
    for text in texts:
        made.add(PathTemplate(text), text)
    return made


def test_a_static_path_comes_before_a_dynamic_one_whatever_was_added_first() -> None:
    for texts in (("/r/<name>", "/r/me"), ("/r/me", "/r/<name>")):
        routes = table(*texts)
        assert routes.find("/r/me") == ("/r/me", {})
        assert routes.find("/r/you") == ("/r/<name>", {"name": "you"})


def test_of_two_dynamic_paths_the_first_that_matches_counts() -> None:
    routes = table("/r/<int:n>", "/r/<name>")
    assert routes.find("/r/7") == ("/r/<int:n>", {"n": 7})
    assert routes.find("/r/seven") == ("/r/<name>", {"name": "seven"})


@pytest.mark.parametrize(
    "paths",
    [
        ("/r/public/<n>", "/r/<a>/<b>"),
        ("/r/<a>/x", "/r/<a>/<b>"),
        ("/r/<int:a>", "/r/<a>"),
        ("/r/room-<a>", "/r/<int:a>", "/r/<a>"),
        ("/r/room-<a>", "/r/r<a>", "/r/<a>"),
        ("/r/<a>/<b>", "/r/<path:a>"),
        ("/r/x/y", "/r/x/<path:a>", "/r/<a>/y", "/r/<path:a>"),
    ],
)
def test_the_path_that_says_more_comes_first_as_with_flasks_rules(paths: tuple[str, ...]) -> None:
    for texts in (paths, paths[::-1]):
        routes = [text for _, text in sorted((PathTemplate(text).rank, text) for text in texts)]
        assert routes == list(paths)
        rules = Map([Rule(text, endpoint=text) for text in texts]).bind("localhost")
        for path in ("/r/public/1", "/r/a/x", "/r/7", "/r/room-7", "/r/a/b", "/r/x/y", "/r/x/z"):
            with suppress(NotFound):
                found = table(*texts).find(path)
                assert rules.match(path)[0] == (found[0] if found else None)


def test_a_path_nobody_serves_is_not_found() -> None:
    assert table("/a", "/r/<int:n>").find("/b") is None
    assert table().find("/") is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param("/ws", "/ws", id="the-same-text"),
        pytest.param("/r/<int:a>", "/r/<int:b>", id="another-name"),
        pytest.param("/r/<int:a>", "/r/{a:int}", id="another-syntax"),
        pytest.param("/r/<a>", "/r/{b:str}", id="another-word-for-text"),
    ],
)
def test_a_path_cannot_be_added_twice(first: str, second: str) -> None:
    routes = table(first)
    with pytest.raises(ConfigError, match=r"^there is a route for "):
        routes.add(PathTemplate(second), second)


def test_paths_that_differ_in_their_converters_are_two() -> None:
    assert table("/r/<int:a>", "/r/<uuid:a>").find(f"/r/{ID}") == ("/r/<uuid:a>", {"a": UUID(ID)})


# --- the set of our paths ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("/ws", "/ws"),
        ("/", "/"),
        ("/ws/<int:room>/x", "/ws/"),
        ("/ws/{room}", "/ws/"),
        ("/<path:any>", "/"),
    ],
)
def test_what_comes_before_the_first_parameter(text: str, prefix: str) -> None:
    assert PathTemplate(text).prefix == prefix


def test_a_set_of_paths() -> None:
    paths = PathSet()
    assert "/" not in paths
    assert not "/".startswith(paths.prefixes)
    paths.add(PathTemplate("/ws/<int:room>"))
    paths.add(PathTemplate("/é"))
    assert paths.prefixes == ("/ws/", "/\xc3\xa9"), "as WSGI writes it"
    assert "/ws/7" in paths
    assert "/é" in paths
    assert "/ws/x" not in paths
