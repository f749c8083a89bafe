"""Connecting to one of several hosts: `postgresql://user@a:5432,b:5432/db`.

asyncpg tries the hosts of such a URL one after the other within one deadline, so that a host that accepts and stays
silent uses up the time of all. Here each has its own: the host that was good last begins, and the others join it after
a moment, or as soon as it fails ("happy eyeballs", RFC 8305). The first that is what is asked for is taken.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

HEAD_START_SECONDS = 0.3  # of the host that was good last; a connection takes some hundredths
Target = Literal["primary", "any"]
"""primary: no standby. any: a standby will do."""

_SET = "SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS settings (name, value)"

_good_last: dict[tuple[str, Target], str] = {}  # by the URL of several hosts
_without_parameters: set[str] = set()  # URLs whose startup parameters are not passed on


class NoHostError(ConnectionError):
    """None of the hosts can be used; the message has each with its reason.

    errors  what each host raised
    """

    def __init__(self, errors: Mapping[str, BaseException]) -> None:
        super().__init__("; ".join(f"{host}: {reason(raised)}" for host, raised in errors.items()))
        self.errors = list(errors.values())


class NotPrimaryError(ConnectionError):
    """The server is a standby."""


async def connect(
    url: str,
    *,
    seconds: float,
    target: Target = "primary",
    server_settings: Mapping[str, str] | None = None,
    **options: Any,
) -> asyncpg.Connection:
    """A connection to the first host of `url` that is `target`.

    seconds          that each host has
    server_settings  that the session begins with; behind a pooler that does not pass them on, set by a statement
    options          of asyncpg.connect

    Raises what asyncpg.connect raises where `url` has one host, NotPrimaryError where that is no primary, and
    NoHostError where it has several.
    """

    async def attempt(host_url: str) -> asyncpg.Connection:
        connection = await _connect_one(url, host_url, dict(server_settings or {}), seconds=seconds, **options)
        try:
            if target == "primary" and await _is_standby(connection):
                raise NotPrimaryError("it is a standby")
        except BaseException:
            connection.terminate()
            raise
        return connection

    hosts = split(url)
    if len(hosts) == 1:
        return await attempt(url)
    good = _good_last.get((url, target), "")
    order = sorted(hosts, key=lambda host: host != good)
    host, connection = await _first([(host, hosts[host]) for host in order], attempt)
    _good_last[url, target] = host
    return connection


def distrust(url: str) -> None:
    """The next connection begins with another host: the last one accepted connections and was of no use."""
    for (known, target), host in list(_good_last.items()):
        if known == url:
            hosts = list(split(url))
            _good_last[known, target] = hosts[(hosts.index(host) + 1) % len(hosts)]


def pass_parameters_by_statement(url: str) -> None:
    """From here on, sessions of this URL begin without parameters and set them afterwards."""
    _without_parameters.add(url)


def split(url: str) -> dict[str, str]:
    """The URL of each host, by how the host is written; a URL without hosts is one, under "".

    Hosts stand before the path, or as host= and port= in the query, each separated by commas (libpq's way).

    Raises asyncpg.ClientConfigurationError where there are not as many ports as hosts.
    """
    parts = urlsplit(url)
    login, at, places = parts.netloc.rpartition("@")
    query = parse_qsl(parts.query, keep_blank_values=True)
    if places:
        return {place: urlunsplit(parts._replace(netloc=f"{login}{at}{place}")) for place in places.split(",")}
    named = dict(query)
    hosts, ports = (named.get(name, "").split(",") for name in ("host", "port"))
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise asyncpg.ClientConfigurationError(f"the database's URL has {len(hosts)} hosts and {len(ports)} ports")
    others = [(name, value) for name, value in query if name not in ("host", "port")]
    return {
        f"{host}:{port}" if port else host: urlunsplit(
            parts._replace(query=urlencode([*others, *(("host", host),) * bool(host), *(("port", port),) * bool(port)]))
        )
        for host, port in zip(hosts, ports, strict=True)
    }


def reason(raised: BaseException) -> str:
    """What an exception says, or is where it says nothing: TimeoutError has no message."""
    return str(raised) or ("no answer in time" if isinstance(raised, TimeoutError) else type(raised).__name__)


async def _first(
    candidates: Sequence[tuple[str, str]], attempt: Callable[[str], Coroutine[Any, Any, asyncpg.Connection]]
) -> tuple[str, asyncpg.Connection]:
    """The first connection that comes about, and its host. Raises NoHostError."""
    tasks: dict[str, asyncio.Task[asyncpg.Connection]] = {}
    try:
        for hosts, seconds in ((candidates[:1], HEAD_START_SECONDS), (candidates[1:], None)):
            tasks.update({host: asyncio.create_task(attempt(host_url)) for host, host_url in hosts})
            pending = {task for task in tasks.values() if not task.done()}
            while pending:
                done, pending = await asyncio.wait(pending, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                for host, task in tasks.items():
                    if task in done and task.exception() is None:
                        return host, tasks.pop(host).result()
                if not done:
                    break
        raise NoHostError({host: raised for host, task in tasks.items() if (raised := task.exception())})
    finally:
        for task in tasks.values():
            task.cancel()
        for late in await asyncio.gather(*tasks.values(), return_exceptions=True):
            if isinstance(late, asyncpg.Connection):
                late.terminate()  # two were good at once


async def _connect_one(
    url: str, host_url: str, settings: dict[str, str], *, seconds: float, **options: Any
) -> asyncpg.Connection:
    open_session = partial(asyncpg.connect, host_url, timeout=seconds, target_session_attrs="any", **options)
    if url not in _without_parameters:
        try:
            return await open_session(server_settings=settings)
        except asyncpg.ProtocolViolationError as raised:
            if "unsupported startup parameter" not in str(raised):  # PgBouncer's words
                raise
            pass_parameters_by_statement(url)
    connection = await open_session()
    try:
        await connection.execute(_SET, list(settings), list(settings.values()), timeout=seconds)
    except BaseException:
        connection.terminate()
        raise
    return connection


async def _is_standby(connection: asyncpg.Connection) -> bool:
    """The server says so as the session begins; only a pooler may have kept that to itself."""
    told: str | None = getattr(connection.get_settings(), "in_hot_standby", None)
    if told is not None:
        return told == "on"
    return bool(await connection.fetchval("SELECT pg_is_in_recovery()"))
