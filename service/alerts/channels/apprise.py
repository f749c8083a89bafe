"""Sends through Apprise, in a separate process for each message.

In this process Apprise would keep some 36 MiB permanently, and its requests would block the event loop.
"""

import asyncio
import os

import msgspec

from service.alerts.channels.kinds import AppriseChannel
from service.alerts.channels.message import Message
from service.alerts.channels.network import Network
from service.alerts.channels.outcome import Outcome
from service.alerts.channels.text import subject, text
from service.command import python_module

DEADLINE_SECONDS = 40.0  # importing it takes seconds on a small machine
_MAX_BYTES = 16 << 10
NOT_INSTALLED = "Apprise is not installed: pip install 'linkbeat[apprise]'"


class Job(msgspec.Struct, frozen=True):
    """Read by the process from its standard input: arguments would be visible to every user of the machine."""

    urls: list[str]
    title: str
    body: str
    allows_private: bool


class Result(msgspec.Struct, frozen=True):
    """Written by the process to its standard output. `error` is "" if every service accepted the message."""

    error: str


async def send(network: Network, channel: AppriseChannel, message: Message) -> Outcome:
    """Delivers once to all services of the channel."""
    job = Job(channel.urls, subject(message), text(message, channel.time_zone), network.allows_private)
    process = await asyncio.create_subprocess_exec(
        *python_module("service.alerts.channels.apprise_process"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,  # libraries write URLs to it
        # Only the variables to find programs and certificates: the others may contain the secrets of the service.
        env={name: os.environ[name] for name in ("PATH", "PYTHONPATH", "SSL_CERT_FILE", "HOME") if name in os.environ},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            out, _ = await process.communicate(msgspec.json.encode(job))
    except TimeoutError:
        return Outcome(error=f"no answer within {DEADLINE_SECONDS:g} seconds")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        result = msgspec.json.decode(out[-_MAX_BYTES:], type=Result)
    except msgspec.MsgspecError:
        return Outcome(error=f"the sending process ended with status {process.returncode}")
    return Outcome(error=result.error)
