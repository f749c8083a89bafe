"""What doctor makes of answers, clocks, files and looks that hang."""

import email.utils
import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.clock import rfc3339
from agent.deadletter import DeadLetters
from agent.doctor import examine, machine
from agent.findings import Finding, found_within, written
from agent.kept import keeping, refused, spool, stamps
from agent.reach import clock, judged
from agent.settings import Settings
from agent.spool import Spool
from tests.helpers.durations import fastest

NOW = 1_790_000_000.0


def states(findings: list[Finding]) -> dict[str, str]:
    return {each.name: each.state for each in findings}


def problem(code: str) -> bytes:
    return json.dumps({"title": "x", "code": code, "detail": "said so", "errors": []}).encode()


def test_a_look_that_hangs_costs_neither_the_time_nor_what_was_found_before() -> None:
    released = threading.Event()

    def look() -> Iterator[Finding]:
        yield Finding("first", "ok", "seen")
        released.wait(120)

    found: list[Finding] = []
    assert fastest(lambda: found.extend(found_within(0.2, "second", look)), within=5) < 5
    released.set()

    assert states(found[:2]) == {"first": "ok", "second": "problem"}


def test_a_look_that_fails_is_a_finding() -> None:
    def look() -> Iterator[Finding]:
        raise ZeroDivisionError("no reason")

    (found,) = found_within(5, "it", look)

    assert (found.state, found.text) == ("problem", "check failed: ZeroDivisionError: no reason")


def test_findings_are_lines_with_the_remedy_below() -> None:
    text = written(
        [
            Finding("a", "ok", "well", "not shown"),
            Finding("longer", "warning", "hm", "do this"),
            Finding("b", "problem", "no"),
            Finding("c", "problem", "no"),
        ]
    )

    assert text.splitlines() == [
        "ok       a       well",
        "warning  longer  hm",
        "                 → do this",
        "problem  b       no",
        "problem  c       no",
        "",
        "2 problems, 1 warning",
    ]
    assert written([Finding("a", "ok", "well")]).endswith("\nNo problems found.")


@pytest.mark.parametrize(
    ("status", "body", "key", "expected"),
    [
        (422, problem("invalid"), "k", {"service": "ok", "token": "ok"}),
        (400, problem("bad_request"), "k", {"service": "ok", "token": "ok"}),
        (422, problem("invalid"), "", {"service": "ok", "token": "ok"}),
        (401, problem("unauthorized"), "k", {"service": "ok", "token": "problem"}),
        (403, problem("forbidden"), "k", {"service": "ok", "token": "problem"}),
        (401, problem("unauthorized"), "", {"service": "ok", "token": "problem"}),
        (503, problem("overloaded"), "k", {"service": "warning"}),
        (401, b"<html>Proxy login</html>", "k", {"service": "problem"}),
        (200, b"<html>Please log in</html>", "k", {"service": "problem"}),
        (200, b'{"status":"ok"}', "k", {"service": "problem"}),
        (302, b"", "k", {"service": "problem"}),
        (404, b'{"detail":"Not Found"}', "k", {"service": "problem"}),
        (422, b"\xff", "k", {"service": "problem"}),
        (422, b"[" * 100_000, "k", {"service": "problem"}),
    ],
)
def test_an_answer_tells_whether_it_is_linkbeat_and_takes_the_token(
    status: int, body: bytes, key: str, expected: dict[str, str]
) -> None:
    found = list(judged(status, http.client.HTTPMessage(), body, key, "why there is none"))

    assert states(found) == expected
    assert all(each.remedy for each in found if each.state != "ok")
    if status == 401 and not key:
        assert found[-1].remedy == "why there is none"


@pytest.mark.parametrize(
    ("ahead", "state", "words"),
    [
        (0, "ok", "agrees"),
        (-4, "ok", "agrees"),
        (10, "warning", "10 s ahead"),
        (-900, "warning", "900 s behind"),
        (400, "problem", "rejects"),
        (1e9, "problem", "rejects"),
        (-6 * 86_400, "warning", "518,400 s behind"),
        (-8 * 86_400, "problem", "LINKBEAT_OLDEST_HEARTBEAT_DAYS"),
        (-1e9, "problem", "rejects"),
    ],
)
def test_clocks_are_compared(ahead: float, state: str, words: str) -> None:
    # Half a second is what the service's cut to the second is assumed to hide.
    (found,) = clock(email.utils.formatdate(NOW, usegmt=True), NOW + 0.5 + ahead)

    assert (found.name, found.state) == ("clock", state)
    assert words in found.text


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Jan 2026 00:00:00 GMT"])
def test_an_answer_without_a_usable_date_says_nothing_of_clocks(date: str) -> None:
    assert list(clock(date, NOW)) == []


def test_what_waits_in_the_spool_is_counted(tmp_path: Path) -> None:
    (tmp_path / "nas.spool").mkdir()
    (tmp_path / "nas.spool" / "1.segment").write_bytes(b"x" * 1500)

    (found,) = spool(tmp_path)

    assert found.state == "ok"
    assert "1,500 bytes in 1 file," in found.text


def test_a_spool_that_is_not_there_is_no_fault_and_one_that_is_no_directory_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    (missing,) = spool(tmp_path / "none")
    (file,) = spool(tmp_path / "file")

    assert (missing.state, file.state) == ("ok", "warning")


def kept(directory: Path, *ahead_seconds: float, acknowledged: int = 0) -> Path:
    """A spool with a heartbeat of each of these times, so far ahead of NOW; the first of them are acknowledged."""
    left = Spool(directory, max_bytes=1 << 20, max_age_seconds=1e12, memory_heartbeats=10, now_ms=lambda: 0)
    for ahead in ahead_seconds:
        left.append(b"{}", int((NOW + ahead) * 1000))
    left.acknowledge([record.sequence for record in left.oldest(acknowledged, 1 << 20, 1 << 62)])
    left.close()
    return directory


@pytest.mark.parametrize(
    ("ahead", "acknowledged", "state", "words"),
    [
        ([-60, -30, 0], 1, "ok", "the last heartbeat is of"),
        ([-30, 3], 0, "ok", "the last heartbeat is of"),
        ([100, 130], 2, "warning", "130 s ahead of this machine's clock"),
        ([400, 430], 2, "warning", "430 s ahead of this machine's clock"),
        ([-60, 86_370, 86_400], 1, "problem", "86,400 s ahead of this machine's clock; 2 that wait are more than 5"),
        ([3e7, 0], 0, "problem", "1 that wait are more than 5 minutes ahead"),
    ],
)
def test_a_heartbeat_that_is_stamped_in_the_future_is_a_finding_with_its_remedy(
    tmp_path: Path, ahead: list[float], acknowledged: int, state: str, words: str
) -> None:
    before = {path: path.read_bytes() for path in kept(tmp_path, *ahead, acknowledged=acknowledged).iterdir()}

    (found,) = stamps(tmp_path, NOW)

    assert (found.name, found.state) == ("timestamps", state)
    assert words in found.text
    assert rfc3339(int((NOW + ahead[-1]) * 1000)) in found.text
    assert found.state == "ok" or "clock was set back" in found.remedy
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_without_a_heartbeat_on_the_disk_nothing_is_said_of_timestamps(tmp_path: Path) -> None:
    (tmp_path / "000000000001.seg").write_bytes(b"no record")

    assert list(stamps(tmp_path, NOW)) == list(stamps(tmp_path / "none", NOW)) == []


SINCE = f"the oldest from {rfc3339(int(NOW + 1) * 1000)}"


@pytest.mark.parametrize(
    ("keep_seconds", "epoch", "text"),
    [
        (900, "7123.4", f"3 acknowledged heartbeats, {SINCE}; the service's database is 7123.4"),
        (900, "", f"3 acknowledged heartbeats, {SINCE}; the service does not name its database"),
        (0, "7123.4", "0 acknowledged heartbeats; the service's database is 7123.4"),
    ],
)
def test_what_is_kept_for_another_database_is_told(tmp_path: Path, keep_seconds: float, epoch: str, text: str) -> None:
    left = Spool(tmp_path, max_bytes=1 << 20, max_age_seconds=1e12, memory_heartbeats=10, keep_seconds=keep_seconds)
    for number in range(5):
        left.append(b"{}", int((NOW + number) * 1000))
    first, *others, _ = left.oldest(9, 1 << 20, 1 << 62)
    left.discard([first.sequence])
    left.acknowledge([record.sequence for record in others], epoch)
    left.close()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    (found,) = keeping(tmp_path)

    assert found == Finding("kept", "ok", text)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert list(keeping(tmp_path / "none")) == []


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("timestamp: is more than 5 minutes ahead of the service's clock, 2026-01-29T10:00:00Z", "let NTP set it"),
        ("HTTP 422: timestamp: is more than 7 days before the service's clock", "let NTP set it"),
        ("network_interfaces[0].rx_bytes: expected int, got str", "newer or older than the service"),
    ],
)
def test_what_the_service_refused_in_the_last_day_is_a_warning(tmp_path: Path, reason: str, remedy: str) -> None:
    DeadLetters(tmp_path / "refused.ndjson").add([("other", b"{}"), (reason, b"{}")])
    with (tmp_path / "refused.ndjson").open("a") as file:
        file.write('no JSON\n{"refused_at":"never"}\n[]\n')

    (found,) = refused(tmp_path, time.time())

    assert (found.name, found.state) == ("refused", "warning")
    assert f"refused 2 heartbeats since yesterday, the last one with: {reason}" in found.text
    assert remedy in found.remedy
    assert list(refused(tmp_path, time.time() + 2 * 86_400)) == list(refused(tmp_path / "none", NOW)) == []


def test_what_is_visible_is_named() -> None:
    found = list(machine(Settings(server_id="nas-01")))

    assert all(each.state != "problem" for each in found), found
    assert {"name", "interfaces", "primary", "filesystems"} <= {each.name for each in found}
    assert "nas-01" in found[0].text


def test_an_interface_that_no_pattern_names_is_a_problem_with_its_remedy() -> None:
    found = {each.name: each for each in machine(Settings(include_interfaces=("none-such",)))}

    assert found["interfaces"].state == "problem"
    assert "LINKBEAT_INCLUDE_INTERFACES" in found["interfaces"].remedy


def test_kernel_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    found = list(machine(Settings(server_id="x", proc=str(tmp_path), sys=str(tmp_path))))

    hidden = [each.text for each in found if each.name == "kernel"]
    assert any(f"{tmp_path}/1/net/dev" in text for text in hidden)
    assert any("class/net" in text for text in hidden)
    assert any("no interfaces are reported" in each.text for each in found if each.name == "filesystems")


def test_settings_that_cannot_be_used_end_it_with_their_problem() -> None:
    found = examine({"LINKBEAT_INTERVAL_SECONDS": "abc", "LINKBEAT_CONFIG": "/dev/null"})

    assert states(found) == {"version": "ok", "settings": "problem"}
    assert "LINKBEAT_INTERVAL_SECONDS" in found[-1].text
