from __future__ import annotations

import logging

import pytest

from ws_middleware.net.logs import RefusalLog, safe
from ws_middleware.types import Refusal, UpgradeRequest

NASTY = [
    "\x1b[2J\x1b]0;title\x07",
    "a\r\nINFO forged line",
    "\x00\x7f\x85\x9b",
    "\u202e\u2028\u2029",
    "é\U0001f4a9",
    "\ud800\udcff",
    "back\\slash \\n",
    "x" * 10_240,
    "\x1b" * 10_240,
    "",
]


@pytest.mark.parametrize("text", NASTY, ids=lambda each: ascii(each[:10]))
def test_whatever_a_peer_says_is_one_short_line_of_printable_ascii(text: str) -> None:
    told = safe(text)
    assert told.isascii()
    assert told.isprintable()
    assert len(told) <= 203
    assert len(safe(text, 20)) <= 23


def test_plain_text_is_left_as_it_is() -> None:
    assert safe("/ws/chat/7 by ann") == "/ws/chat/7 by ann"


def test_what_is_cut_looks_cut() -> None:
    assert safe("x" * 200) == "x" * 200
    assert safe("x" * 201) != "x" * 201
    assert safe("x" * 201).startswith("x" * 200)


def test_two_texts_do_not_look_the_same() -> None:
    assert safe("a\n") != safe("a\\n")


# --- refusals ------------------------------------------------------------------------------------


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> RefusalLog:
    caplog.set_level(logging.INFO, "ws_middleware")
    return RefusalLog()


def request(target: str = "/ws") -> UpgradeRequest:
    return UpgradeRequest("GET", target, "1.1", b"")


REFUSAL = Refusal(401, "credential_missing", "to the peer", "to the log")


def test_a_refusal_is_one_line_with_its_path_code_and_reason(
    log: RefusalLog, caplog: pytest.LogCaptureFixture
) -> None:
    log.add(request("/ws/x?token=secret"), REFUSAL, 100)
    (record,) = caplog.records
    assert record.getMessage() == "refused /ws/x: credential_missing. to the log"
    assert record.levelno == logging.INFO
    assert record.name == "ws_middleware.gate"
    assert (record.ws_status, record.ws_code) == (401, "credential_missing")  # type: ignore[attr-defined]


def test_without_a_reason_for_the_log_it_is_the_peers(
    log: RefusalLog, caplog: pytest.LogCaptureFixture
) -> None:
    log.add(None, Refusal(408, "head_timeout", "no whole head in 5 s"), 100)
    assert caplog.messages == ["refused -: head_timeout. no whole head in 5 s"]


def test_what_a_setting_would_mend_is_a_warning_once_and_only_with_its_remedy(
    log: RefusalLog, caplog: pytest.LogCaptureFixture
) -> None:
    for why in ("", "add this line", "add this line"):
        log.add(request(), Refusal(426, "upgrade_required", "no", why), 100)
    assert [each.levelname for each in caplog.records] == ["INFO", "WARNING", "INFO"]


@pytest.mark.parametrize(("status", "level"), [(401, "INFO"), (500, "WARNING"), (503, "WARNING")])
def test_a_fault_of_ours_is_a_warning(
    log: RefusalLog, caplog: pytest.LogCaptureFixture, status: int, level: str
) -> None:
    log.add(request(), Refusal(status, "code", "detail"), 100)
    assert caplog.records[0].levelname == level


@pytest.mark.parametrize("nasty", NASTY[:-1], ids=lambda each: ascii(each[:10]))
def test_a_peer_cannot_forge_or_flood_a_line(
    log: RefusalLog, caplog: pytest.LogCaptureFixture, nasty: str
) -> None:
    target = "/" + nasty.encode("utf-8", "surrogatepass").decode("latin-1")
    log.add(request(target), Refusal(403, "code", "detail", f"Page: {nasty}"), 100)
    (line,) = caplog.messages
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 700


def test_of_a_flood_ten_a_second_are_told_and_the_rest_is_counted(
    log: RefusalLog, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1000):
        log.add(request(), REFUSAL, 100 + number / 1_000_000)
    assert len(caplog.messages) == 10
    log.add(request(), REFUSAL, 101)
    assert len(caplog.messages) == 11
    assert caplog.messages[-1].endswith("(990 more refusals unsaid)")
    log.add(request(), REFUSAL, 101)
    assert caplog.messages[-1].endswith("to the log")
    for second in range(60):
        for number in range(100):
            log.add(request(), REFUSAL, 200 + second + number / 100)
    assert len(caplog.messages) <= 12 + 10 + 600


def test_a_refusal_now_and_then_is_always_told(
    log: RefusalLog, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(100):
        log.add(request(), REFUSAL, 100 + number * 0.101)
    assert len(caplog.messages) == 100
    assert not [line for line in caplog.messages if "unsaid" in line]
