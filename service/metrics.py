"""Metrics of the service for Prometheus. They contain no server's name and no secret.

Each part keeps its own counts as plain numbers; they are converted for Prometheus at each scrape.
"""

from collections import Counter

from prometheus_client import CollectorRegistry, GCCollector, Histogram, ProcessCollector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_HEARTBEATS = (1, 2, 5, 10, 20, 50, 100, 200)


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.rejected: Counter[str] = Counter()  # heartbeats, by the code of their problem
        self.ingest_seconds = Histogram(
            "linkbeat_ingest_seconds",
            "Time from the head of a heartbeat's request to its 200 response, once it is on the database's disk.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_heartbeats = Histogram(
            "linkbeat_ingest_batch_heartbeats",
            "Heartbeats committed together.",
            buckets=_HEARTBEATS,
            registry=self.registry,
        )
