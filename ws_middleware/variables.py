"""Settings as environment variables: WSM_* (docs/settings.md lists them)."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from .checks import GROUPS, LISTS, NUMBERS, SWITCHES, TEXTS, WORDS, check_values, nearest
from .errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["known_variables", "read_environ", "unknown_variables"]

_PREFIX: Final = "WSM_"

#: Fields of a group that only code says: what an app and its pages have agreed on.
_UNVARIABLE: Final = frozenset({"app_ping", "app_pong"})

#: How a switch is written in a variable.
_SWITCH_WORDS: Final = {"true": True, "1": True, "false": False, "0": False}


def known_variables() -> dict[str, tuple[str, str | None]]:
    """Return every variable there is: its name, the setting, the field of a group."""
    known: dict[str, tuple[str, str | None]] = {
        f"{_PREFIX}{name.upper()}": (name, None)
        for name in (*LISTS, *TEXTS, *WORDS, *SWITCHES, *NUMBERS)
    }
    for group, kind in GROUPS.items():
        for part in (each for each in fields(kind) if each.name not in _UNVARIABLE):
            known[f"{_PREFIX}{group.upper()}_{part.name.upper()}"] = (group, part.name)
    return known


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return a sentence for each WSM_* variable that means nothing, with the nearest that does."""
    known = known_variables()
    return [
        f"the environment variable {name} means nothing{_hint(name, known)}"
        for name in (os.environ if environ is None else environ)
        if name.startswith(_PREFIX) and name not in known
    ]


def _hint(name: str, known: Iterable[str]) -> str:
    for group, kind in GROUPS.items():
        part = name.removeprefix(f"{_PREFIX}{group.upper()}_").lower()
        if part in _UNVARIABLE and part in {each.name for each in fields(kind)}:
            return f": it is for the code to say, {kind.__name__}({part}=...)"
    return nearest(name, known)


def read_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that variables say.

    Raises:
        ConfigError: a value is wrong; the text names the variable.
    """
    settings: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {}
    for variable, (name, part) in known_variables().items():
        if variable not in environ:
            continue
        text = environ[variable]
        if part is not None:
            number: Any = _read_number(variable, text)
            given: dict[str, Any] = {part: number}
            try:
                GROUPS[name](**given)
            except ConfigError as error:
                msg = f"{variable}: {error}"
                raise ConfigError(msg) from None
            groups.setdefault(name, {})[part] = number
        elif name in NUMBERS:
            settings[name] = _read_number(variable, text)
        elif name in SWITCHES:
            settings[name] = _read_switch(variable, text)
        elif name in LISTS:
            settings[name] = _read_list(text)
        else:
            settings[name] = text
        if part is None:
            check_values({name: settings[name]}, variable)
    for name, values in groups.items():
        settings[name] = GROUPS[name](**values)
    return settings


def _read_list(text: str) -> str | list[str]:
    if text in {"same-origin", "*"}:
        return text
    return [part for piece in text.split(",") if (part := piece.strip())]


def _read_switch(variable: str, text: str) -> bool:
    if text.lower() not in _SWITCH_WORDS:
        msg = f"{variable} takes true or false, or 1 or 0; got {text!r}"
        raise ConfigError(msg)
    return _SWITCH_WORDS[text.lower()]


def _read_number(variable: str, text: str) -> float | None:
    if text.lower() == "none":
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    msg = f"{variable} takes a number, or none for no limit; got {text!r}"
    raise ConfigError(msg)
