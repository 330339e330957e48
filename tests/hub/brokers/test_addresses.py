"""What a broker's URL may be, and what of it is never shown."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from ws_middleware.errors import ConfigError
from ws_middleware.hub.brokers.addresses import Servers
from ws_middleware.hub.brokers.redis import RedisBroker

from .test_contract import opened, run

if TYPE_CHECKING:
    from tests.redis_server import RedisServer


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://localhost", id="scheme"),
        pytest.param("redis+unis:///tmp/x", id="kind"),
        pytest.param("rediss+unix:///tmp/x", id="TLS over a socket file"),
        pytest.param("redis+unix://tmp/x", id="two slashes of three"),
        pytest.param("redis://localhost:port", id="port"),
        pytest.param("redis+sentinel://localhost", id="no service"),
        pytest.param("redis+cluster://one,,two", id="no host"),
        pytest.param("redis://localhost?db=first", id="no number"),
        pytest.param("redis://localhost?tiemout=1", id="no option"),
        pytest.param("redis://localhost?sentinel_password=x", id="no option of this kind"),
        pytest.param("rediss://localhost?ssl_cert_reqs=perhaps", id="no value"),
        pytest.param("", id="empty"),
    ],
)
def test_a_url_that_is_none_is_refused_at_start(url: str) -> None:
    with pytest.raises(ConfigError, match="redis://host:6379/0"):
        Servers(url)


def test_no_password_is_shown() -> None:
    url = "rediss://ann:secret@example.org:6380/2?ssl_cert_reqs=none&password=secret"
    assert str(Servers(url)) == "rediss://example.org:6380/2"
    url = "redis+sentinel://:secret@one:1,two:2/shop?sentinel_password=secret"
    assert str(Servers(url)) == "redis+sentinel://one:1,two:2/shop"
    with pytest.raises(ConfigError) as caught:
        Servers("redis+what://ann:secret@example.org")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:se/cret@host:6379/0",
        "redis://:12/cret@host:6379/0",
        "redis://ann:se?cret@host:6379/0",
        "redis://ann:se#cret@host:6379/0",
        "redis+unix://:se/cret@/run/redis.sock",
        "redis+cluster://:se/cret@one,two",
    ],
)
def test_a_password_that_is_not_encoded_is_refused_and_no_part_of_it_shown(url: str) -> None:
    with pytest.raises(ConfigError, match="percent-encoded") as caught:
        Servers(url)
    told = str(caught.value)
    assert not [part for part in ("se/", "se?", "se#", "12", "cret", "'se'") if part in told]


def test_any_password_works_when_it_is_encoded(redis: RedisServer) -> None:
    password = "p@s/s:w#o?r%d ,é"
    with redis.client as client:
        client.config_set("requirepass", password)

    async def work() -> None:
        secret = quote(password, safe="")
        for url in (
            f"redis://:{secret}@127.0.0.1:{redis.port}/0",
            f"redis+unix://:{secret}@{redis.path}",
            f"redis+cluster://:{secret}@127.0.0.1:{redis.port}",
        ):
            async with opened(RedisBroker(url), "a") as (broker, ear):
                await broker.publish("a", b"x")
                await ear.until(lambda: ear.heard)

    run(work())


def test_options_that_would_break_it_are_ours_and_a_name_is_the_urls(server: RedisServer) -> None:
    options = (
        "decode_responses=true&protocol=3&socket_timeout=0.05&encoding=latin-1&max_connections=1"
        "&health_check_interval=1&retry_on_timeout=yes&timeout=1&client_name=shop&db=2"
    )

    async def work() -> None:
        async with opened(RedisBroker(f"{server.url}?{options}"), "é") as (broker, ear):
            with server.client as client:
                until = time.monotonic() + 0.5  # ten times as long as the option says
                while time.monotonic() < until:
                    await broker.publish("é", b"\xff")
                names = {each["name"] for each in client.client_list()}
            await ear.until(lambda: ear.heard)
            assert ear.heard[0] == ("é", b"\xff")
            assert ear.losses == []
            assert "shop" in names

    run(work())


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_hosts_may_be_ipv6(server: RedisServer) -> None:
    async def work() -> None:
        for url in (
            f"redis://[::1]:{server.port}/0",
            f"redis+cluster://127.0.0.1:1,[::1]:{server.port}",
            f"redis+cluster://[::1]:1,[::1]:{server.port}",
        ):
            assert str(Servers(url)) == url
            async with opened(RedisBroker(url), "a") as (broker, ear):
                await broker.publish("a", b"x")
                await ear.until(lambda: ear.heard)

    run(work())
