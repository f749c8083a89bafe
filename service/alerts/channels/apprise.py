"""Apprise: services that it knows, told by a process of its own that ends with the message.

In this process it would hold some 36 MiB for ever, and its requests would wait in the event loop.
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
    """What the process reads on its standard input: arguments are for every user of the machine to see."""

    urls: list[str]
    title: str
    body: str
    allows_private: bool


class Result(msgspec.Struct, frozen=True):
    """What it writes on its standard output. `error` is "" where every service took the message."""

    error: str


async def send(network: Network, channel: AppriseChannel, message: Message) -> Outcome:
    """Delivers once to all of the channel's services."""
    job = Job(channel.urls, subject(message), text(message, channel.time_zone), network.allows_private)
    process = await asyncio.create_subprocess_exec(
        *python_module("service.alerts.channels.apprise_process"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,  # where libraries write URLs
        # Of the environment what finds programs and certificates: the service's own holds its secrets.
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
        return Outcome(error=f"the process that sends ended with status {process.returncode}")
    return Outcome(error=result.error)
