"""Checks of a setting where it is given that need the modules which know it.

Not first when a door opens: whoever wrote it is told at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .checks import MEMORY
from .errors import ConfigError
from .gate.origin import OriginRule

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check_broker", "check_origins"]


def check_origins(given: Mapping[str, Any]) -> None:
    """Refuse an origin that is none where it is given, and not first when a door opens.

    Raises:
        ConfigError: `given["origins"]` is wrong.
    """
    if "origins" in given:
        origins = given["origins"]
        if not isinstance(origins, (str, Sequence)):
            msg = f"origins takes 'same-origin', '*' or a list of origins, got {origins!r}"
            raise ConfigError(msg)
        OriginRule(origins if isinstance(origins, str) else tuple(origins), ambient=False)


def check_broker(given: Mapping[str, Any]) -> None:
    """Refuse a broker that cannot be used where it is given, and not first when a door opens.

    Raises:
        ConfigError: `given["broker"]` is no URL, or redis-py is not installed.
    """
    broker = str(given.get("broker", MEMORY))
    if not broker.startswith("redis"):
        return
    try:
        from .hub.brokers.addresses import Servers  # noqa: PLC0415 - the extra "redis"
    except ImportError:
        msg = "a redis:// broker needs redis-py: python -m pip install 'ws-middleware[redis]'"
        raise ConfigError(msg) from None
    Servers(broker)
