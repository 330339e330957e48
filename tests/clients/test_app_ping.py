"""The line that a page needs to answer pings which are messages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.asgi.servers import run, token
from tests.docs.pages import ROOT, read_blocks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clients.conftest import Node

pytestmark = pytest.mark.node


def test_a_page_with_the_line_of_the_docs_stays_and_one_without_is_closed(
    node: Node, tmp_path: Path
) -> None:
    blocks = read_blocks(ROOT / "docs" / "handlers.md")
    (line,) = [block.code for block in blocks if block.language == "javascript"]
    with run("uvicorn sansio", tmp_path) as server:
        url = f"ws://127.0.0.1:{server.port}/ws/pinged"
        seen: dict[str, Any] = json.loads(node.run("app_ping.mjs", url, token(), line))
        server.until(lambda: len(server.seen("/ws/pinged")) == 2)
    assert seen["code"] == 1011
    assert seen["silent"][:2] == ["hello", "ping"]
    assert seen["isOpen"]
    assert seen["answers"][0] == "hello"
    assert set(seen["answers"][1:]) == {"ping"}
