from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from ws_middleware.config import Limits, Policy
from ws_middleware.errors import ConfigError
from ws_middleware.hub.hub import Hub
from ws_middleware.route import Route, Shape

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

TWO = "a route has one conversation, or events, not both and not two"


def route(
    path: str = "/ws",
    *,
    name: str | None = None,
    subprotocols: Sequence[str] = (),
    **policy: Any,
) -> Route:
    given: Policy = policy  # type: ignore[assignment]
    return Route(path, hub=Hub(), name=name, subprotocols=subprotocols, policy=given)


async def conversation(ws: object) -> None: ...


def blocking(ws: object) -> None: ...


def event(ws: object, message: object) -> None: ...


class Talker:
    async def __call__(self, ws: object) -> None: ...

    async def talk(self, ws: object) -> None: ...

    def block(self, ws: object) -> None: ...

    @staticmethod
    async def static(ws: object) -> None: ...


# --- shapes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handler", "shape"),
    [
        pytest.param(conversation, Shape.CONVERSATION, id="async-def"),
        pytest.param(blocking, Shape.BLOCKING, id="def"),
        pytest.param(lambda ws: None, Shape.BLOCKING, id="lambda"),
        pytest.param(Talker(), Shape.CONVERSATION, id="object"),
        pytest.param(Talker().talk, Shape.CONVERSATION, id="bound-method"),
        pytest.param(Talker().block, Shape.BLOCKING, id="bound-def-method"),
        pytest.param(Talker.static, Shape.CONVERSATION, id="static-method"),
        pytest.param(functools.partial(conversation), Shape.CONVERSATION, id="partial"),
        pytest.param(functools.partial(Talker()), Shape.CONVERSATION, id="partial-of-an-object"),
        pytest.param(functools.partial(blocking), Shape.BLOCKING, id="partial-of-def"),
    ],
)
def test_a_conversation(handler: Callable[..., Any], shape: Shape) -> None:
    made = route()
    assert made(handler) is made
    assert made.handler is handler
    assert made.shape is shape


def test_a_partial_may_give_arguments_of_its_own() -> None:
    async def talk(prefix: str, ws: object, *, room: str, loud: bool) -> None: ...

    made = route("/<room>")
    made(functools.partial(talk, "x", loud=True))
    assert made.shape is Shape.CONVERSATION


def test_events() -> None:
    made = route()
    assert made.on_message(event) is event
    assert made.on_open(conversation) is conversation
    assert made.on_close(blocking) is blocking
    assert made.shape is Shape.EVENTS
    assert made.events == {"on_message": event, "on_open": conversation, "on_close": blocking}


def test_no_handler_is_push_only() -> None:
    made = route()
    assert made.shape is Shape.PUSH
    assert repr(made) == "<Route /ws (push only)>"


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        (Shape.CONVERSATION, "async def conversation"),
        (Shape.BLOCKING, "def conversation"),
        (Shape.EVENTS, "events"),
        (Shape.PUSH, "push only"),
    ],
)
def test_the_words_for_a_shape(shape: Shape, text: str) -> None:
    assert shape.value == text


def test_decorators_stack() -> None:
    above, below = route("/above"), route("/below")
    assert above(below(conversation)) is above
    assert above.handler is below.handler is conversation


def test_a_stacked_handler_is_checked_against_the_path_above() -> None:
    above, below = route("/<room>"), route("/below")
    below(conversation)
    with pytest.raises(ConfigError, match=r"^/<room>: conversation is called as "):
        above(below)


def test_events_do_not_stack() -> None:
    above, below = route("/above"), route("/below")
    below.on_message(event)
    with pytest.raises(ConfigError) as caught:
        above(below)
    assert str(caught.value) == (
        "/above: the route below has no conversation to share; events don't stack"
    )


# --- handlers that are wrong ---------------------------------------------------------------------


def test_two_conversations() -> None:
    made = route()
    made(conversation)
    with pytest.raises(ConfigError) as caught:
        made(blocking)
    assert str(caught.value) == f"/ws: {TWO}"
    assert made.handler is conversation


@pytest.mark.parametrize("name", ["on_open", "on_message", "on_close"])
def test_an_event_beside_a_conversation(name: str) -> None:
    made = route()
    made(conversation)
    with pytest.raises(ConfigError) as caught:
        getattr(made, name)(event)
    assert str(caught.value) == f"/ws: {TWO}"
    assert made.events == {}


@pytest.mark.parametrize("name", ["on_open", "on_message", "on_close"])
def test_a_conversation_beside_an_event(name: str) -> None:
    made = route()
    getattr(made, name)(event if name == "on_message" else blocking)
    with pytest.raises(ConfigError) as caught:
        made(conversation)
    assert str(caught.value) == f"/ws: {TWO}"
    assert made.handler is None


@pytest.mark.parametrize("name", ["on_open", "on_message", "on_close"])
def test_two_of_one_event(name: str) -> None:
    made = route()
    handler = event if name == "on_message" else blocking
    getattr(made, name)(handler)
    with pytest.raises(ConfigError) as caught:
        getattr(made, name)(handler)
    assert str(caught.value) == f"/ws: there is an {name} handler already"


@pytest.mark.parametrize("handler", [5, "talk", ["x"]])
def test_a_handler_is_a_function(handler: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        route()(handler)
    assert str(caught.value) == f"/ws: conversation takes a function, got {handler!r}"
    with pytest.raises(ConfigError) as caught:
        route().on_open(handler)
    assert str(caught.value) == f"/ws: on_open takes a function, got {handler!r}"


def generator(ws: object) -> Iterator[str]:
    yield "x"


async def async_generator(ws: object) -> AsyncIterator[str]:
    yield "x"


class Yielding:
    def __call__(self, ws: object) -> Iterator[str]:
        yield "x"


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        pytest.param(generator, "generator", id="generator"),
        pytest.param(async_generator, "async_generator", id="async-generator"),
        pytest.param(functools.partial(generator), "generator", id="partial"),
        pytest.param(Yielding(), "Yielding", id="object"),
    ],
)
def test_a_handler_does_not_yield(handler: Any, name: str) -> None:
    for give in (route(), route().on_open):
        with pytest.raises(ConfigError) as caught:
            give(handler)
        assert str(caught.value) == (
            f"/ws: {name} has a yield in it; a handler sends with ws.send()"
        )


def takes_nothing() -> None: ...


def takes_room(ws: object, room: str) -> None: ...


def takes_more(ws: object, *, room: str, x: int) -> None: ...


def takes_by_position(ws: object, room: str, /) -> None: ...


def takes_anything(*args: object, **kwargs: object) -> None: ...


def takes_by_name(ws: object, *, room: str) -> None: ...


def takes_default(ws: object, room: str, x: int = 5) -> None: ...


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        pytest.param(takes_nothing, "too many positional arguments", id="nothing"),
        pytest.param(blocking, "got an unexpected keyword argument 'room'", id="not-the-parameter"),
        pytest.param(takes_more, "missing a required keyword-only argument: 'x'", id="more"),
        pytest.param(
            takes_by_position,
            "'room' parameter is positional only, but was passed as a keyword",
            id="by-position",
        ),
        pytest.param(takes_room, None, id="by-position-or-name"),
        pytest.param(takes_by_name, None, id="by-name"),
        pytest.param(takes_anything, None, id="anything"),
        pytest.param(takes_default, None, id="a-default-of-its-own"),
    ],
)
def test_a_handler_takes_what_it_is_given(handler: Any, why: str | None) -> None:
    made = route("/<room>")
    if why is None:
        assert made(handler).handler is handler
        return
    with pytest.raises(ConfigError) as caught:
        made(handler)
    name = handler.__name__
    text = str(caught.value)
    assert text.startswith(
        f"/<room>: {name} is called as {name}(ws, room), which it doesn't take: "
    )
    # The rest is Python's own word, which later versions may put in another way.
    assert ("room" in text.rpartition(": ")[2]) == ("room" in why)
    assert made.handler is None


def test_a_message_handler_takes_the_message() -> None:
    with pytest.raises(ConfigError) as caught:
        route("/<room>").on_message(takes_room)
    assert str(caught.value).startswith(
        "/<room>: takes_room is called as takes_room(ws, message, room), which it doesn't take: "
    )


def test_a_method_that_is_not_bound_is_missing_self() -> None:
    with pytest.raises(ConfigError, match=r"^/ws: Talker\.talk is called as Talker\.talk\(ws\), "):
        route()(Talker.talk)


def test_a_callable_without_a_signature_is_a_config_error() -> None:
    with pytest.raises(ConfigError):
        route().on_open(max)


# --- paths, names, subprotocols, policies --------------------------------------------------------


@pytest.mark.parametrize("name", ["ws", "message"])
@pytest.mark.parametrize("form", ["/<{}>", "/<int:{}>", "/{{{}:int}}"])
def test_some_parameters_are_taken(form: str, name: str) -> None:
    path = form.format(name)
    with pytest.raises(ConfigError) as caught:
        route(path)
    assert str(caught.value) == (
        f"{path}: a parameter cannot be called {name!r}, handlers get that already"
    )


def test_a_wrong_path_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"^a route's path begins with /"):
        route("ws")


@pytest.mark.parametrize(
    ("path", "name", "expected"),
    [
        ("/ws", None, "/ws"),
        ("/chat/<int:room>/{user}", None, "/chat/*/*"),
        ("/ws", "chat", "chat"),
    ],
)
def test_the_name_is_the_masked_path_unless_given(
    path: str, name: str | None, expected: str
) -> None:
    assert route(path, name=name).name == expected


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 256])
def test_a_name_that_is_none_is_a_config_error(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^route name must be 1 to 255 bytes of UTF-8"):
        route(name=name)


def test_subprotocols_are_a_list() -> None:
    assert route(subprotocols=["a", "b"]).subprotocols == ("a", "b")
    with pytest.raises(ConfigError) as caught:
        route(subprotocols="chat")
    assert str(caught.value) == "/ws: subprotocols takes a list, got the text 'chat'"


def test_an_unknown_setting_is_told_with_the_nearest() -> None:
    with pytest.raises(TypeError) as caught:
        route(origin="https://myapp.com")
    assert str(caught.value) == "route('/ws') has no setting 'origin'; did you mean origins?"


def test_a_setting_of_the_app_is_none_of_a_route() -> None:
    with pytest.raises(TypeError, match=r"^route\('/ws'\) has no setting 'sync_threads'"):
        route(sync_threads=5)


def test_the_policy_given_is_kept_as_given() -> None:
    limits = Limits(message_size=5)
    assert route(limits=limits, origins="*").given == {"limits": limits, "origins": "*"}


@pytest.mark.parametrize(
    "policy",
    [{"refuse_with": "html"}, {"limits": 5}, {"auth": 5}, {"authorize": "may_read"}],
    ids=lambda policy: next(iter(policy)),
)
def test_a_wrong_value_is_a_config_error_where_it_is_given(policy: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"route\('/ws'\)|route /ws"):
        route(**policy)


# --- audiences -----------------------------------------------------------------------------------


def test_audiences_are_of_the_route() -> None:
    made = route("/chat/<room>")
    number: Any = 7
    assert repr(made.room("x")) == "<Audience room:x:/chat/*>"
    assert repr(made.room(number)) == "<Audience room:7:/chat/*>"
    assert repr(made.user("ann")) == "<Audience user:ann:/chat/*>"
    assert repr(made.everyone) == "<Audience everyone:/chat/*>"


def test_a_room_is_a_name() -> None:
    ident: Any = UUID(int=1)
    assert repr(route().room(ident)) == f"<Audience room:{ident}:/ws>"
    for bad in ("", "a\n"):
        with pytest.raises(ValueError, match=r"^room must be 1 to 255 bytes"):
            route().room(bad)
    wrong: Any = None
    with pytest.raises(TypeError, match=r"^room must be str, int or UUID, not NoneType$"):
        route().room(wrong)
    with pytest.raises(TypeError, match=r"^user id must be str, int or UUID, not NoneType$"):
        route().user(wrong)
