"""Which connections stay: of one address, in all, and of clients that do not read."""

import resource
from collections.abc import Iterator

import pytest

from service.http.connections import ALL_UNREAD_BYTES, RESERVED_DESCRIPTORS, Connections, raise_descriptor_limit
from service.http.limits import ClientAddress

PEERS = ClientAddress(["10.0.0.0/8"])


class Connection:
    """One that closes when it is told to."""

    def __init__(self, known: Connections, host: str = "192.0.2.1") -> None:
        self.is_idle = True
        self.is_open = True
        self._known = known
        self._host = host
        self.may_stay = known.add(self, host)

    def close_idle(self) -> None:
        assert self.is_idle
        self.abort()

    def abort(self) -> None:
        self.is_open = self.is_idle = False
        self._known.remove(self, self._host)


def test_the_oldest_idle_one_of_an_address_makes_room() -> None:
    known = Connections(3, PEERS, 100)
    busy, idle, newer = (Connection(known) for _ in range(3))
    busy.is_idle = False
    elsewhere = Connection(known, "192.0.2.2")

    new = Connection(known)

    assert new.may_stay
    assert [one.is_open for one in (busy, idle, newer, elsewhere)] == [True, False, True, True]
    assert len(known) == 4


def test_where_none_is_idle_the_new_one_is_refused() -> None:
    known = Connections(2, PEERS, 100)
    for one in (Connection(known), Connection(known)):
        one.is_idle = False

    assert not Connection(known).may_stay
    assert Connection(known, "192.0.2.2").may_stay


@pytest.mark.parametrize(("host", "other", "is_one"), [
    ("192.0.2.1", "192.0.2.2", False),
    ("2001:db8::1", "2001:db8::2", True),
    ("2001:db8::1", "2001:db8:0:1::1", False),
    ("::ffff:192.0.2.1", "192.0.2.1", True),
])  # fmt: skip
def test_an_ipv6_address_is_its_network(host: str, other: str, is_one: bool) -> None:
    known = Connections(1, PEERS, 100)
    first = Connection(known, host)

    second = Connection(known, other)

    assert second.may_stay
    assert first.is_open is not is_one


def test_a_trusted_proxy_has_no_bound_of_its_own() -> None:
    known = Connections(1, PEERS, 100)

    assert all(Connection(known, "10.0.0.1").may_stay for _ in range(50))
    assert len(known) == 50


def test_past_the_bound_of_all_the_address_that_has_the_most_makes_room() -> None:
    known = Connections(100, PEERS, 20)
    holder = [Connection(known, "192.0.2.66") for _ in range(18)]
    agents = [Connection(known, f"192.0.2.{n}") for n in range(2)]

    new = Connection(known, "192.0.2.99")

    assert new.may_stay
    assert all(agent.is_open for agent in agents)
    assert sum(one.is_open for one in holder) == 2, "several at once: to look for them costs"
    assert len(known) == 5


def test_who_leaves_the_most_unread_the_longest_is_dropped() -> None:
    known = Connections(100, PEERS, 100)
    first, second, third = (Connection(known) for _ in range(3))
    part = ALL_UNREAD_BYTES // 2

    known.is_unread(first, part)
    known.is_unread(second, part)
    assert first.is_open
    known.is_unread(third, 1)

    assert [one.is_open for one in (first, second, third)] == [False, True, True]
    known.is_read(second)
    known.is_unread(third, part * 2)
    assert third.is_open


def test_all_that_is_known_of_a_connection_goes_with_it() -> None:
    known = Connections(100, PEERS, 100)
    one = Connection(known)
    known.is_unread(one, 100)

    one.abort()
    one.abort()

    assert (len(known), known._of, known._unread, known._unread_bytes) == (0, {}, {}, 0)


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_process_takes_all_the_descriptors_that_it_may_have(limits: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, limits[1]))

    connections = raise_descriptor_limit()

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard == limits[1]
    assert connections <= soft - RESERVED_DESCRIPTORS
