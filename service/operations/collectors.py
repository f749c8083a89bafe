"""Metrics for Prometheus: of the process, ingest, the response cache, the pools and the database."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from agent import __version__
from service.cache import Answers
from service.database.pool import Database
from service.ingest.commit import Ingest
from service.metrics import Metrics

FAILURES = ("retry ", "refused ", "reconnect ", "seal_", "not_flushed", "not_replicated", "other_server")
JOB_STATES = ("ok", "failing", "overdue", "taken over", "off")


class Exposition:
    """The metrics of one process, as text."""

    def __init__(
        self,
        metrics: Metrics,
        ingest: Ingest,
        answers: Answers,
        databases: Sequence[Database],
    ) -> None:
        self._registry = metrics.registry
        self._registry.register(_Observed(metrics, ingest, answers, databases))

    def text(self, accept: str, jobs: Iterable[str] | None, edition: str) -> tuple[bytes, str]:
        """The metrics in the format that `accept` requests, OpenMetrics or Prometheus' text format; and its media type.

        jobs   the state of each background job; None: the database is unavailable
        """
        encode, media_type = choose_encoder(accept)
        return encode(_Scrape(self._registry, jobs, edition)), media_type


class _Scrape(Collector):
    """The registry and the metrics from the database."""

    def __init__(self, registry: CollectorRegistry, jobs: Iterable[str] | None, edition: str) -> None:
        self._registry = registry
        self._jobs = jobs
        self._edition = edition

    def collect(self) -> Iterator[Metric]:
        yield from self._registry.collect()
        yield InfoMetricFamily("linkbeat", "Version and edition.", {"version": __version__, "edition": self._edition})
        yield GaugeMetricFamily(
            "linkbeat_database_up", "1 if the database is available.", float(self._jobs is not None)
        )
        if self._jobs is not None:
            found = Counter(self._jobs)
            jobs = GaugeMetricFamily("linkbeat_jobs", "Background jobs, by state.", labels=["state"])
            for state in JOB_STATES:
                jobs.add_metric([state], found[state])
            yield jobs


class _Observed(Collector):
    """Metrics that other parts count."""

    def __init__(
        self,
        metrics: Metrics,
        ingest: Ingest,
        answers: Answers,
        databases: Sequence[Database],
    ) -> None:
        self._metrics = metrics
        self._ingest = ingest
        self._answers = answers
        self._databases = databases

    def collect(self) -> Iterator[Metric]:
        ingest, databases = self._ingest, self._databases
        counts = ingest.counts
        yield _counter(
            "linkbeat_heartbeats", "Acknowledged heartbeats, by result.", "result",
            {"stored": counts["heartbeats"] - counts["duplicates"], "duplicate": counts["duplicates"]},
        )  # fmt: skip
        yield _counter(
            "linkbeat_heartbeats_conflicting", "Duplicates whose values differ.", None,
            {"": counts["conflicts"]},
        )  # fmt: skip
        yield _counter(
            "linkbeat_heartbeats_rejected", "Rejected heartbeats, by reason.", "reason", self._metrics.rejected
        )
        failures = {name.replace(" ", "_"): n for name, n in counts.items() if name.startswith(FAILURES)}
        yield _counter("linkbeat_ingest_failures", "Failed attempts to execute a batch.", "kind", failures)
        state = ingest.durability
        yield InfoMetricFamily(
            "linkbeat_durability",
            "Requested and effective durability of acknowledged heartbeats: local, replicated or none.",
            {"asked": state.asked, "in_force": state.in_force},
        )
        yield GaugeMetricFamily(
            "linkbeat_durability_in_force", "1 if the requested durability is effective.", float(not state.reason)
        )
        yield GaugeMetricFamily(
            "linkbeat_ingest_queue_heartbeats", "Heartbeats that wait for the database.", ingest.queued
        )
        yield GaugeMetricFamily("linkbeat_ingest_up", "1 if heartbeats can be stored.", float(ingest.is_connected))
        yield _counter(
            "linkbeat_read_queries", "Queries for reads.", None,
            {"": sum(one.queries for one in databases)},
        )  # fmt: skip
        yield _counter(
            "linkbeat_read_failures", "Queries for reads that failed or timed out.", None,
            {"": sum(one.failures for one in databases)},
        )  # fmt: skip
        told = {name: self._answers.counts[name] for name in ("hits", "misses", "not_modified")}
        yield _counter("linkbeat_answers", "Requests to the response cache.", "result", told)


def _counter(name: str, words: str, label: str | None, values: "Counter[str] | dict[str, int]") -> Metric:
    family = CounterMetricFamily(name, words, labels=[label] if label else [])
    for value, count in sorted(values.items()):
        family.add_metric([value] if label else [], count)
    return family
