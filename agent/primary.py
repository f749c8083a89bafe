"""The machine's main interface (specification, section 1.4)."""

import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .network import NetworkInterface

WINDOW_SECONDS = 10.0
LEAST_BYTES = 1024  # in the window: less is the network talking to itself
CHANGE_FACTOR = 2.0  # what another interface must be better by: two that share the load take no turns

# Docker gives its bridges these names; the kernel does not say whose a bridge is.
_DOCKER = re.compile(r"docker|br-[0-9a-f]{12}\Z")


class _Traffic(NamedTuple):
    octets: int
    packets: int


class _Reading(NamedTuple):
    moment: float
    traffic: dict[str, _Traffic]


class PrimaryInterface:
    """Chooses it at each heartbeat; where no default route decides, by the traffic since an earlier heartbeat.

    The window is from the newest reading that is at least 10 s old, so nothing ever waits for it. At the first
    heartbeat, and while nothing moves 1 KiB in a window, the choice before stands, or the totals since boot decide.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._readings: deque[_Reading] = deque()
        self._chosen: str | None = None

    def choose(self, interfaces: Sequence[NetworkInterface], default_routes: Sequence[str]) -> str | None:
        """The name of one of `interfaces`, or None where none is a candidate.

        default_routes      interfaces of the default routes, the best first.
        """
        candidates = {each.name: _traffic(each) for each in interfaces if _is_candidate(each)}
        routed = next((name for name in default_routes if name in candidates), None)
        if routed is not None:
            self._readings.clear()
            self._chosen = routed
            return routed
        scores = self._scores(candidates)
        if self._chosen not in candidates:
            scores = scores or {name: _score(traffic, None) for name, traffic in candidates.items()}
            self._chosen = max(scores, key=scores.__getitem__, default=None)
        elif scores:
            best = max(scores, key=scores.__getitem__)
            if scores[best] > CHANGE_FACTOR * scores.get(self._chosen, 0.0):
                self._chosen = best
        return self._chosen

    def _scores(self, now: dict[str, _Traffic]) -> dict[str, float]:
        """Score by name of those that moved LEAST_BYTES in the window; empty while there is none."""
        moment = self._monotonic()
        self._readings.append(_Reading(moment, now))
        while len(self._readings) > 1 and moment - self._readings[1].moment >= WINDOW_SECONDS:
            self._readings.popleft()
        earlier = self._readings[0]
        seconds = moment - earlier.moment
        if seconds < WINDOW_SECONDS:
            return {}
        moved = {
            name: _Traffic(
                _gained(earlier.traffic[name].octets, traffic.octets),
                _gained(earlier.traffic[name].packets, traffic.packets),
            )
            for name, traffic in now.items()
            if name in earlier.traffic
        }
        return {name: _score(traffic, seconds) for name, traffic in moved.items() if traffic.octets >= LEAST_BYTES}


def _is_candidate(interface: NetworkInterface) -> bool:
    """Up, and neither Docker's nor a veth; but a container's own interface is a veth, which is on nothing."""
    if not interface.is_up or _DOCKER.match(interface.name):
        return False
    return interface.kind != "veth" or not interface.stacked_on


def _traffic(interface: NetworkInterface) -> _Traffic:
    return _Traffic(interface.rx_bytes + interface.tx_bytes, interface.rx_packets + interface.tx_packets)


def _score(traffic: _Traffic, seconds: float | None) -> float:
    """Without a window (None) there is no rate."""
    return traffic.octets + (1000 * traffic.packets / seconds if seconds else 0.0)


def _gained(before: int, now: int) -> int:
    """A counter that shrank was reset, and counts from 0."""
    return now - before if now >= before else now
