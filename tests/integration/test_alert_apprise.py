"""Channels of kind apprise: a process of its own, which reaches nothing inside the network and starts no program."""

import importlib.util
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.alerts.channels import apprise
from service.alerts.channels.apprise import NOT_INSTALLED
from service.alerts.channels.apprise_process import Guard, Refused
from service.alerts.channels.kinds import AppriseChannel
from service.alerts.channels.message import Message, message
from service.alerts.channels.network import Network
from tests.helpers.receivers import http_receiver

REPOSITORY = Path(__file__).parents[2]
IS_INSTALLED = importlib.util.find_spec("apprise") is not None
needs_apprise = pytest.mark.skipif(
    not IS_INSTALLED, reason="apprise is not installed: pip install 'linkbeat[apprise]', or a folder in PYTHONPATH"
)


def alert() -> Message:
    payload = (
        '{"id": "6f1c9a52-7d2e-4c7e-9a55-3f3a0a1f9b10.1", "state": "firing", "rule": "busy", "severity": "critical", '
        '"server_id": "nas", "subject": "eth0", "value": 1, "count": 1}'
    )
    return message(payload, datetime(2026, 1, 29, 10, tzinfo=UTC))


def channel(*urls: str) -> AppriseChannel:
    return AppriseChannel(kind="apprise", urls=list(urls))


@pytest.mark.skipif(IS_INSTALLED, reason="apprise is installed")
async def test_without_apprise_the_channel_says_how_to_install_it() -> None:
    outcome = await apprise.send(Network(allows_private=True), channel("ntfys://s3cret-topic"), alert())

    assert outcome.error == NOT_INSTALLED


@needs_apprise
async def test_a_message_reaches_a_service_through_apprise() -> None:
    async with http_receiver() as receiver:
        outcome = await apprise.send(
            Network(allows_private=True), channel(f"json://127.0.0.1:{receiver.port}/s3cret"), alert()
        )

        assert outcome.error == ""
        (sent,) = receiver.received
    assert b"busy on nas eth0" in sent.body


@needs_apprise
async def test_through_apprise_nothing_inside_the_network_is_reached() -> None:
    async with http_receiver() as receiver:
        for host in ("127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]"):
            url = f"json://{host}:{receiver.port}/s3cret"
            outcome = await apprise.send(Network(allows_private=False), channel(url), alert())

            assert outcome.error, host
            assert "s3cret" not in outcome.error
        assert receiver.received == []


@needs_apprise
async def test_a_url_that_apprise_does_not_understand_is_named_without_its_secrets() -> None:
    outcome = await apprise.send(Network(allows_private=True), channel("nosuch://s3cret"), alert())

    assert outcome.error == "urls[0]: Apprise does not understand this nosuch:// URL"


def test_the_guard_refuses_every_way_inwards_and_every_program() -> None:
    guard = Guard(allows_private=False)
    guard("socket.connect", (None, ("8.8.8.8", 443)))
    guard("socket.sendto", (None, ("2606:4700:4700::1111", 443, 0, 0)))
    for event, address in (
        ("socket.connect", ("10.0.0.1", 80)),
        ("socket.connect", ("fe80::1%eth0", 80, 0, 2)),
        ("socket.connect", "/run/docker.sock"),
        ("socket.connect", ("localhost", 80)),
        ("socket.sendto", ("127.0.0.1", 514)),
        ("socket.sendmsg", ("::1", 53, 0, 0)),
        ("subprocess.Popen", ("sh", [], None, None)),
        ("os.system", (b"true",)),
    ):
        with pytest.raises(Refused):
            guard(event, (None, address))
    Guard(allows_private=True)("socket.connect", (None, ("10.0.0.1", 80)))


def test_the_process_connects_nowhere_inwards_whichever_library_opens_the_connection() -> None:
    """The guard as an audit hook, in a process of its own: a hook cannot be removed again."""
    script = (
        "import sys, socket, urllib.request\n"
        "from service.alerts.channels.apprise_process import Guard\n"
        "sys.addaudithook(Guard(allows_private=False))\n"
        "for call in (lambda: socket.create_connection(('localhost', 9)),\n"
        "             lambda: urllib.request.urlopen('http://127.0.0.1:9/'),\n"
        "             lambda: __import__('subprocess').run(['true'])):\n"
        "    try:\n        call()\n"
        "    except OSError as raised:\n        print('LINKBEAT' in str(raised) or 'may not' in str(raised))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, env=dict(os.environ), capture_output=True, text=True, check=True
    )

    assert run.stdout.split() == ["True"] * 3
