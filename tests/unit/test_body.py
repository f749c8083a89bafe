"""The body of a request: decompressed while it comes, and never more of it than allowed."""

import asyncio
import gzip
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.http.body import INFLATED_AT_ONCE, JSON_TYPES, MAX_MEMBERS, content, read
from service.http.budget import Budget, Held
from service.http.errors import Problem
from tests.helpers.bombs import bomb

LIMIT = 1 << 20
SCOPE: Any = {"headers": []}


class Sender:
    """A client that sends `chunks`; how many of them were asked for is `sent`."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self.sent = 0

    async def receive(self) -> Any:
        chunk = next(self._chunks, None)
        self.sent += 1
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}


async def unpacked(chunks: Iterable[bytes], limit: int = LIMIT) -> bytes:
    return await read(SCOPE, Sender(chunks).receive, limit, is_gzip=True)


def outcome(chunks: Iterable[bytes], limit: int = LIMIT) -> bytes | str:
    """The body, or the code of the problem."""
    try:
        return asyncio.run(unpacked(chunks, limit))
    except Problem as problem:
        return problem.code


def cut(body: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """The body in pieces that end at `places`."""
    start = 0
    for place in sorted(place % (len(body) + 1) for place in places):
        yield body[start:place]
        start = place
    yield body[start:]


@given(members=st.lists(st.binary(max_size=2_000), min_size=1, max_size=4), places=st.lists(st.integers(0), max_size=8))
def test_members_are_joined_however_they_are_cut(members: list[bytes], places: list[int]) -> None:
    body = b"".join(gzip.compress(member) for member in members)

    assert outcome(cut(body, places)) == b"".join(members)


@given(data=st.binary(max_size=500), place=st.integers(0))
def test_what_ends_early_is_damaged(data: bytes, place: int) -> None:
    body = gzip.compress(data)

    assert outcome([body[: place % len(body)]]) == "invalid_gzip"


@given(data=st.binary(max_size=200), garbage=st.binary(min_size=1, max_size=50), places=st.lists(st.integers(0)))
def test_what_follows_the_last_member_is_not_left_unread(data: bytes, garbage: bytes, places: list[int]) -> None:
    assert outcome(cut(gzip.compress(data) + b"\0" + garbage, places)) == "invalid_gzip"


@settings(max_examples=500)
@given(data=st.binary(max_size=300), place=st.integers(0), flipped=st.integers(1, 255), places=st.lists(st.integers(0)))
def test_a_damaged_byte_is_found_or_stands_where_it_means_nothing(
    data: bytes, place: int, flipped: int, places: list[int]
) -> None:
    body = bytearray(gzip.compress(data))
    body[place % len(body)] ^= flipped

    assert outcome(cut(bytes(body), places)) in (data, "invalid_gzip")


@given(st.binary(max_size=500), st.lists(st.integers(0)))
def test_any_bytes_after_a_header_are_a_body_or_damaged(noise: bytes, places: list[int]) -> None:
    found = outcome(cut(b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + noise, places))

    assert isinstance(found, bytes) or found in ("invalid_gzip", "too_large")


@pytest.mark.parametrize("level", [1, 9])
def test_the_limit_is_of_what_comes_out(level: int) -> None:
    data = b"1234567 " * 5_000

    assert outcome([gzip.compress(data, level)], 40_000) == data
    assert outcome([gzip.compress(data + b" ", level)], 40_000) == "too_large"


def test_the_limit_is_of_what_comes_in_too() -> None:
    """Empty blocks: five bytes each, of which nothing ever comes out."""
    blocks = (b"\0\0\0\xff\xff" * 2_000 for _ in range(10_000))
    sender = Sender(chain([b"\x1f\x8b\x08\0\0\0\0\0\0\xff"], blocks))

    with pytest.raises(Problem, match="too_large"):
        asyncio.run(read(SCOPE, sender.receive, LIMIT, is_gzip=True))
    assert sender.sent < LIMIT / 10_000 + 3


def test_members_without_an_end_are_refused() -> None:
    nothing = gzip.compress(b"")

    assert outcome([nothing * MAX_MEMBERS]) == b""
    assert outcome([nothing * (MAX_MEMBERS + 1)]) == "invalid_gzip"


@pytest.mark.parametrize("size", [1 << 10, 1 << 16, 1 << 24])
def test_ten_gigabytes_in_ten_megabytes_cost_neither_memory_nor_time(size: int) -> None:
    packed = bomb(10 << 30)
    assert len(packed) < 11 << 20
    chunks = [packed[start : start + size] for start in range(0, 4 << 20, size)]
    sender = Sender(chunks)
    tracemalloc.start()
    started = time.process_time()  # a busy machine takes longer, and no more of it

    try:
        with pytest.raises(Problem, match="too_large"):
            asyncio.run(read(SCOPE, sender.receive, 8 << 20, is_gzip=True))
        took = time.process_time() - started
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    # What came, what comes out up to the limit, and room to grow into.
    assert peak < (20 << 20) + 2 * min(size, 4 << 20)
    assert took < 1.0


async def test_a_body_that_does_not_end_is_not_unpacked() -> None:
    """Eight kilobytes that unpack to eight megabytes: a client that holds them back holds those kilobytes alone."""
    packed = bomb(16 << 20)[: 8 << 10]
    budget = Budget()
    held = Held(budget, "nas", is_limited=True)
    sender = Sender([packed, b""])
    read_all = asyncio.Event()

    async def receive() -> Any:
        if sender.sent:
            read_all.set()
            await asyncio.Event().wait()
        return await sender.receive()

    reading = asyncio.create_task(read(SCOPE, receive, 8 << 20, is_gzip=True, held=held))
    await read_all.wait()

    assert (budget.small_bytes, budget.large_bytes) == (len(packed), 0)
    reading.cancel()


async def test_others_have_their_turn_while_much_is_unpacked() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    body = await unpacked([gzip.compress(b"x" * (8 << 20))], 8 << 20)
    task.cancel()

    assert len(body) == 8 << 20
    assert turns >= (8 << 20) // INFLATED_AT_ONCE - 1


async def test_a_client_that_goes_is_told_apart_from_damage() -> None:
    messages = iter(
        [
            {"type": "http.request", "body": gzip.compress(b"x")[:5], "more_body": True},
            {"type": "http.disconnect"},
        ]
    )

    async def receive() -> Any:
        return next(messages)

    with pytest.raises(Problem, match="bad_request"):
        await read(SCOPE, receive, LIMIT, is_gzip=True)


@pytest.mark.parametrize(
    ("encodings", "is_gzip"),
    [
        ([], False), ([b""], False), ([b"identity"], False), ([b"gzip"], True), ([b" GZip "], True),
        ([b"x-gzip"], True), ([b"identity, gzip"], True), ([b"identity", b"gzip"], True), ([b"gzip, gzip"], None),
        ([b"gzip", b"gzip"], None), ([b"br"], None), ([b"deflate"], None), ([b"gzip, br"], None),
        ([b"gzip;q=1"], None), ([b"\xff"], None),
    ],
)  # fmt: skip
def test_encodings_are_none_gzip_once_or_not_understood(encodings: list[bytes], is_gzip: bool | None) -> None:
    scope: Any = {"headers": [(b"content-encoding", encoding) for encoding in encodings]}

    if is_gzip is None:
        with pytest.raises(Problem, match="unsupported_media_type"):
            content(scope, JSON_TYPES)
    else:
        assert content(scope, JSON_TYPES) == (b"", is_gzip)
