"""A machine whose cards change their names: within a boot, over reboots, between sockets. tests/integration/
test_interface_names_laws.py holds the series of each card against what it counted, whatever it was called."""

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.helpers.oracle import COUNTERS, Beat, Sample
from tests.helpers.support import boot_id

INTERVAL = 30
NAMES = ("eth0", "eth1", "ens3", "enp1s0", "lan0", "wan0")
EVENTS = ("rename", "exchange", "reboot", "reboot and exchange", "another socket", "missed")
EVIDENCE = ("ifindex", "address", "both", "slot")


@dataclass
class Card:
    """One device: what it has counted since it was powered, and what the system calls it now."""

    number: int
    name: str
    ifindex: int
    rate: int
    is_present: bool = True
    counts: list[int] = field(default_factory=lambda: [0] * len(COUNTERS))

    def run(self, rng: random.Random) -> None:
        octets = rng.randint(self.rate // 2, self.rate)
        grown = [octets, octets // 3, octets // 900, octets // 2700, 0, 0, 0, 0]
        self.counts = [count + more for count, more in zip(self.counts, grown, strict=True)]

    def restart(self) -> None:
        self.counts = [0] * len(COUNTERS)


@dataclass
class Story:
    """Heartbeats as they are sent, by name, and the same ones by card, as `account` counts them."""

    sent: list[Beat] = field(default_factory=list)
    by_card: list[Beat] = field(default_factory=list)
    names: list[dict[str, int]] = field(default_factory=list)  # card by name, for each heartbeat
    events: Counter[str] = field(default_factory=Counter)


def story(  # noqa: PLR0912 - told in the order of its draws: a seed must tell the same one
    rng: random.Random, start: datetime
) -> Story:
    """Up to three cards for up to half an hour. What the agent can tell of them is drawn too: by the kernel's number
    alone, cards are followed within a boot only, so their names do not change over a reboot then."""
    told = Story()
    evidence = rng.choice(EVIDENCE)
    told.events[f"evidence: {evidence}"] += 1
    cards = [
        Card(n, name, 2 + n, rng.choice([10**4, 10**6, 10**8]))
        for n, name in enumerate(rng.sample(NAMES, rng.randint(1, 3)))
    ]
    for card in cards:
        card.counts = [10**12 // (n + 1) + card.number for n in range(4)] + [0] * 4
    boot, next_index, moment = 0, 10, start

    def read() -> None:
        nonlocal moment
        moment += timedelta(seconds=INTERVAL)
        for card in cards:
            card.run(rng)
        present = [card for card in cards if card.is_present]
        samples = {card.name: _sample(card, evidence) for card in present}
        told.sent.append(Beat(moment, boot_id(f"{boot}"), samples, INTERVAL))
        told.by_card.append(
            Beat(moment, boot_id(f"{boot}"), {f"{card.number}": samples[card.name] for card in present}, INTERVAL)
        )
        told.names.append({card.name: card.number for card in present})

    def exchange() -> None:
        names = [card.name for card in cards]
        rng.shuffle(names)
        for card, name in zip(cards, names, strict=True):
            card.name = name

    for _ in range(rng.randint(2, 4)):
        read()
    for _ in range(rng.randint(1, 5)):
        allowed = [
            event for event in EVENTS if evidence != "ifindex" or event in ("rename", "exchange", "reboot", "missed")
        ]
        if evidence == "slot":
            allowed.remove("another socket")
        event = rng.choice(allowed)
        told.events[event] += 1
        if event == "rename":
            rng.choice(cards).name = rng.choice([name for name in NAMES if name not in {card.name for card in cards}])
        elif event == "exchange":
            exchange()
        elif event in ("reboot", "reboot and exchange"):
            boot += 1
            for place, card in enumerate(rng.sample(cards, len(cards))):
                card.restart()
                card.ifindex = 2 + place
            next_index = 10
            if event == "reboot and exchange":
                exchange()
        elif event == "another socket":
            card = rng.choice(cards)
            if rng.random() < 0.5:
                card.is_present = False
                read()
                card.is_present = True
            card.restart()
            card.ifindex = next_index
            next_index += 1
            card.name = rng.choice([name for name in NAMES if name not in {one.name for one in cards}])
        elif event == "missed":
            moment += timedelta(seconds=INTERVAL * rng.randint(2, 9))
        for _ in range(rng.randint(1, 4)):
            read()
    return told


def _sample(card: Card, evidence: str) -> Sample:
    return Sample(
        tuple(card.counts),
        "physical",
        None,
        ifindex=card.ifindex if evidence in ("ifindex", "both") else None,
        permanent_address=f"52:54:00:00:00:{card.number:02x}" if evidence in ("address", "both") else None,
        bus_path=f"pci0000:00/0000:00:0{card.number}.0" if evidence == "slot" else None,
    )
