"""Connecting to one of several hosts: `postgresql://user@a:5432,b:5432/db`.

asyncpg tries the hosts of such a URL one after the other within one deadline, so a host that accepts the connection but
does not respond uses up the time of all. Here each host has its own deadline: the last working host is tried first, and
the others after a short delay or as soon as it fails ("Happy Eyeballs", RFC 8305). The first suitable host is used.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

HEAD_START_SECONDS = 0.3  # for the last working host; connecting takes some hundredths of a second
Target = Literal["primary", "any"]
"""primary: not a standby. any: a standby is acceptable."""

_SET = "SELECT set_config(name, value, false) FROM unnest($1::text[], $2::text[]) AS settings (name, value)"

_good_last: dict[tuple[str, Target], str] = {}  # by the URL of several hosts
_without_parameters: set[str] = set()  # URLs of poolers that do not pass startup parameters on


class NoHostError(ConnectionError):
    """None of the hosts can be used; the message gives the reason for each.

    errors  one exception per host
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
    """A connection to the first host of `url` that matches `target`.

    seconds          time limit for each host
    server_settings  initial settings of the session; set by a statement behind a pooler that does not pass them on
    options          of asyncpg.connect

    With one host in `url`, raises the exceptions of asyncpg.connect, or NotPrimaryError if it is a standby; with
    several, NoHostError.
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
    """Makes the next connection start with another host: the last one accepted connections but did not work."""
    for (known, target), host in list(_good_last.items()):
        if known == url:
            hosts = list(split(url))
            _good_last[known, target] = hosts[(hosts.index(host) + 1) % len(hosts)]


def pass_parameters_by_statement(url: str) -> None:
    """From here on, sessions of this URL begin without parameters and set them afterwards."""
    _without_parameters.add(url)


def split(url: str) -> dict[str, str]:
    """The URL of each host, by how the host is written; a URL without hosts is one, under "".

    Hosts stand before the path, or as host= and port= in the query, each separated by commas, as in libpq.

    Raises asyncpg.ClientConfigurationError if the numbers of hosts and ports differ.
    """
    parts = urlsplit(url)
    login, at, places = parts.netloc.rpartition("@")
    if places:
        return {place: urlunsplit(parts._replace(netloc=f"{login}{at}{place}")) for place in places.split(",")}
    query = parse_qsl(parts.query, keep_blank_values=True)
    named = dict(query)
    hosts, ports = (named.get(name, "").split(",") for name in ("host", "port"))
    if hosts == [""]:
        return {"": url}
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise asyncpg.ClientConfigurationError(f"the database's URL has {len(hosts)} hosts and {len(ports)} ports")
    others = [(name, value) for name, value in query if name not in ("host", "port")]
    urls = {}
    for host, port in zip(hosts, ports, strict=True):
        own = [("host", host), ("port", port)] if port else [("host", host)]
        urls[f"{host}:{port}" if port else host] = (
            f"{parts.scheme}://{parts.netloc}{parts.path}?{urlencode(others + own)}"
        )
    return urls


def reason(raised: BaseException) -> str:
    """The message of an exception, or its type if it has none, like TimeoutError."""
    return str(raised) or ("no response in time" if isinstance(raised, TimeoutError) else type(raised).__name__)


async def _first(
    candidates: Sequence[tuple[str, str]], attempt: Callable[[str], Coroutine[Any, Any, asyncpg.Connection]]
) -> tuple[str, asyncpg.Connection]:
    """The first connection that succeeds, and its host. Raises NoHostError."""
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
                late.terminate()  # two succeeded at the same time


async def _connect_one(
    url: str, host_url: str, settings: dict[str, str], *, seconds: float, **options: Any
) -> asyncpg.Connection:
    open_session = partial(asyncpg.connect, host_url, timeout=seconds, target_session_attrs="any", **options)
    if url not in _without_parameters:
        try:
            return await open_session(server_settings=settings)
        except asyncpg.ProtocolViolationError as raised:
            if "unsupported startup parameter" not in str(raised):  # the message of PgBouncer
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
    """The server reports this at the start of the session; only a pooler may omit it."""
    told: str | None = getattr(connection.get_settings(), "in_hot_standby", None)
    if told is not None:
        return told == "on"
    return bool(await connection.fetchval("SELECT pg_is_in_recovery()"))
