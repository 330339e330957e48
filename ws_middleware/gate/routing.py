"""Paths: `/ws/chat/<int:room>` as Flask writes it, `/ws/chat/{room:int}` as Starlette does."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from ws_middleware.errors import ConfigError
from ws_middleware.names import is_name

__all__ = ["PathSet", "PathTable", "PathTemplate"]

#: `<converter:name>`, `<name>`, `{name:converter}`, `{name}`.
_PARAMETER: Final = re.compile(
    r"<(?:(?P<flask>[A-Za-z_]\w*):)?(?P<name>[A-Za-z_]\w*)>"
    r"|\{(?P<name2>[A-Za-z_]\w*)(?::(?P<starlette>[A-Za-z_]\w*))?\}",
    re.ASCII,
)

#: Converters that are tried before the others, and the one that takes what is left, as in Flask.
_NARROW: Final = frozenset({"int", "float"})
_GREEDY: Final = "path"

#: What a lenient router may take for a parameter.
_ANY: Final = "[^/]+"

_Converter = tuple[str, Callable[[str], Any]]

_CONVERTERS: Final[dict[str, _Converter]] = {
    "str": (r"[^/]+", str),
    "string": (r"[^/]+", str),
    "path": (r"[^/].*?", str),
    "int": (r"[0-9]+", int),
    "float": (r"[0-9]+\.[0-9]+", float),
    "uuid": (r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", UUID),
}

T = TypeVar("T")


@dataclass(frozen=True)
class PathTemplate:
    """A path with its parameters.

    Raises:
        ConfigError: it doesn't begin with a slash, or a parameter comes twice.
    """

    text: str
    #: Regular expressions for converters of the host app's own: their parameters stay text here.
    expressions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pattern, converters = self._compile()
        object.__setattr__(self, "_pattern", pattern)
        object.__setattr__(self, "converters", converters)
        object.__setattr__(self, "_lenient", self._compile_leniently())

    def _compile(self) -> tuple[re.Pattern[str], dict[str, Callable[[str], Any]]]:
        if not self.text.startswith("/") or "?" in self.text or "#" in self.text:
            msg = f"a route's path begins with / and has no ? or #, got {self.text!r}"
            raise ConfigError(msg)
        converters: dict[str, Callable[[str], Any]] = {}
        pattern, end = "", 0
        for found in _PARAMETER.finditer(self.text):
            name = found["name"] or found["name2"]
            kind = _kind(found)
            if name in converters:
                msg = f"{self.text}: the parameter {name!r} comes twice"
                raise ConfigError(msg)
            # One that nobody knows yet may be the host app's; see check().
            expression, converters[name] = _CONVERTERS.get(kind, _CONVERTERS["str"])
            if kind in self.expressions:
                expression, converters[name] = self.expressions[kind], str
            pattern += re.escape(self.text[end : found.start()]) + f"(?P<{name}>{expression})"
            end = found.end()
        rest = self.text[end:]
        if re.search(r"[<>{}]", re.sub(_PARAMETER, "", self.text)):
            msg = (
                f"{self.text}: cannot read the parameters; write <int:room> or {{room:int}}, "
                "or a plain <room>"
            )
            raise ConfigError(msg)
        return re.compile(pattern + re.escape(rest), re.DOTALL), converters

    def _compile_leniently(self) -> re.Pattern[str]:
        text, pattern, end = _plain(self.text), "", 0
        for found in _PARAMETER.finditer(text):
            pattern += re.escape(text[end : found.start()])
            pattern += ".+" if _kind(found) == _GREEDY else _ANY
            end = found.end()
        return re.compile(pattern + re.escape(text[end:]), re.DOTALL)

    def check(self) -> None:
        """See that every converter is known.

        Raises:
            ConfigError: one is not.
        """
        for kind in self.kinds - _CONVERTERS.keys() - self.expressions.keys():
            msg = (
                f"{self.text}: unknown converter {kind!r}; there are {', '.join(_CONVERTERS)}. One "
                "that a Flask app has in app.url_map.converters works on a route with FlaskAuth, "
                "or on a view, @app.route(..., websocket=True), that returns sockets.upgrade(...)"
            )
            raise ConfigError(msg)

    @property
    def kinds(self) -> frozenset[str]:
        """The converters in it."""
        return frozenset(_kind(found) for found in _PARAMETER.finditer(self.text))

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of its parameters, in order."""
        return tuple(self.__dict__["converters"])

    @property
    def prefix(self) -> str:
        """What comes before the first parameter."""
        found = _PARAMETER.search(self.text)
        return self.text if found is None else self.text[: found.start()]

    @property
    def masked(self) -> str:
        """The path with every parameter as `*`: a route's name where none is given."""
        return _PARAMETER.sub("*", self.text)

    @property
    def as_flask(self) -> str:
        """The path as Flask writes it, whichever way it was written."""

        def rewrite(found: re.Match[str]) -> str:
            kind, name = _kind(found), found["name"] or found["name2"]
            return f"<{'string' if kind == 'str' else kind}:{name}>"

        return _PARAMETER.sub(rewrite, self.text)

    @property
    def rank(self) -> tuple[tuple[int, ...], ...]:
        """For sorting: of two templates that match the same path, the smaller one says more of it.

        Part by part, as Flask's rules go: plain text, then text with a parameter in it, then a
        parameter, a number's before any other.
        """
        return tuple(_rank(part) for part in self.text.split("/"))

    @property
    def shape(self) -> str:
        """What it matches, whatever its parameters are called."""
        return re.sub(r"\(\?P<\w+>", "(", self.__dict__["_pattern"].pattern)

    def match(self, path: str) -> dict[str, Any] | None:
        """Return the parameters if `path` (decoded) is one of this template, else `None`.

        A parameter becomes a room or a part of a name, so one that cannot be a name is no match.
        """
        found = self.__dict__["_pattern"].fullmatch(path)
        if found is None:
            return None
        values: dict[str, str] = found.groupdict()
        if not all(is_name(value) for value in values.values()):
            return None
        return {name: self.__dict__["converters"][name](text) for name, text in values.items()}

    def is_like(self, path: str) -> bool:
        """Whether a router that reads paths leniently may take `path` for one of this template.

        Some overlook slashes too many and one at the end, and some read `+1` and `1.0` as an int.
        """
        return self.__dict__["_lenient"].fullmatch(_plain(path)) is not None


def _plain(path: str) -> str:
    """Return a path without slashes that say nothing; before a match, so that it is linear."""
    return "/" + "/".join(part for part in path.split("/") if part)


def _kind(found: re.Match[str]) -> str:
    return found["flask"] or found["starlette"] or "str"


def _rank(part: str) -> tuple[int, ...]:
    kinds = [_kind(found) for found in _PARAMETER.finditer(part)]
    if not kinds:
        return (0,)
    if _GREEDY in kinds:
        return (3,)
    text = len(_PARAMETER.sub("", part))
    return (1 if text else 2, -text, *(kind not in _NARROW for kind in kinds))


class PathTable(Generic[T]):
    """What is served under which path; of two, the one that says more of it (`rank`)."""

    def __init__(self) -> None:
        self._entries: list[tuple[PathTemplate, T]] = []

    def add(self, template: PathTemplate, value: T) -> None:
        """Add one.

        Raises:
            ConfigError: the same path (whatever its parameters are called) is there already.
        """
        for other, _ in self._entries:
            if other.shape == template.shape:
                msg = f"there is a route for {template.text} already"
                raise ConfigError(msg)
        self._entries.append((template, value))
        self._entries.sort(key=lambda entry: entry[0].rank)

    def find(self, path: str) -> tuple[T, dict[str, Any]] | None:
        """Return what is served under `path`, with its parameters, or `None`."""
        for template, value in self._entries:
            parameters = template.match(path)
            if parameters is not None:
                return value, parameters
        return None


class PathSet:
    """Which paths are ours: asked for each HTTP request, most of which `prefixes` tells apart."""

    def __init__(self) -> None:
        #: What our paths begin with, in WSGI's way: UTF-8 read as latin-1.
        self.prefixes: tuple[str, ...] = ()
        self._templates: list[PathTemplate] = []

    def add(self, template: PathTemplate) -> None:
        """Add the paths of a template."""
        self._templates.append(template)
        prefix = template.prefix.encode("utf-8", "surrogateescape").decode("latin-1")
        self.prefixes = (*self.prefixes, prefix)

    def __contains__(self, path: str) -> bool:
        return any(template.match(path) is not None for template in self._templates)
