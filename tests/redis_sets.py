"""Several Redis servers that belong together: a master with replica and sentinels, or a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.redis_server import RedisServer, Sentinel, free_port, need_redis, until

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

__all__ = ["Cluster", "Watched"]

SLOTS = 16384


class Watched:
    """A master, its replica, and sentinels that watch them; a context."""

    def __init__(self, folder: Path, sentinels: int = 1) -> None:
        command = need_redis()
        self.master = RedisServer(command, made(folder / "m"), "--repl-diskless-sync-delay", "0")
        follows = ("--replicaof", "127.0.0.1", str(self.master.port))
        self.replica = RedisServer(command, made(folder / "r"), *follows)
        self.sentinels = [
            Sentinel(command, made(folder / f"s{number}"), self.master, quorum=sentinels // 2 + 1)
            for number in range(sentinels)
        ]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        return f"redis+sentinel://{hosts}/shop"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        self.master.start()
        self.replica.start()
        with self.replica.client as client:
            until(lambda: client.info("replication")["master_link_status"] == "up")
        for each in self.sentinels:
            each.start()
        others = len(self.sentinels) - 1
        for each in self.sentinels:
            until(lambda: each.knows().get("num-slaves") == 1)  # noqa: B023 - called here
            until(lambda: each.knows().get("num-other-sentinels") == others)  # noqa: B023

    def __exit__(self, *args: object) -> None:
        for sentinel in self.sentinels:
            sentinel.kill()
        self.replica.kill()
        self.master.kill()


class Cluster:
    """Masters that share the slots; a context."""

    def __init__(self, folder: Path, nodes: int = 3) -> None:
        command = need_redis()
        #: Their own port for each other: the usual one is 10,000 above, which may be too high.
        self._buses = [free_port() for _ in range(nodes)]
        self.nodes = [
            RedisServer(
                command,
                made(folder / f"n{number}"),
                *("--cluster-enabled", "yes", "--cluster-node-timeout", "2000"),
                *("--cluster-require-full-coverage", "no", "--cluster-port", str(bus)),
            )
            for number, bus in enumerate(self._buses)
        ]

    @property
    def url(self) -> str:
        return self.url_of(*self.nodes)

    @staticmethod
    def url_of(*nodes: RedisServer) -> str:
        """Return a URL that knows these nodes only."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{each.port}" for each in nodes)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        for each in self.nodes:
            each.start()
        first = self.nodes[0]
        share = SLOTS // len(self.nodes) + 1
        for number, each in enumerate(self.nodes):
            last = min((number + 1) * share, SLOTS) - 1
            with each.client as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * share, last)
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port, self._buses[0])
        until(lambda: self.is_whole)

    @property
    def is_whole(self) -> bool:
        """Whether all nodes know and reach each other."""
        return all(map(self._is_linked, self.nodes))

    def _is_linked(self, node: RedisServer) -> bool:
        with node.client as client:
            lines = str(client.execute_command("CLUSTER INFO"))
            linked = [each for each in client.cluster("NODES").values() if each["connected"]]
        return "'cluster_state': 'ok'" in lines and len(linked) == len(self.nodes)

    def __exit__(self, *args: object) -> None:
        for each in self.nodes:
            each.kill()


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder
