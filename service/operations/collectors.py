"""What Prometheus is told: the process's own counts, and what ingest, the cache, the pools and the database know."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import asyncpg
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from agent import __version__
from service.cache import Answers
from service.database.pool import Database
from service.ingest.commit import Ingest
from service.metrics import Metrics

JOB_STATES = ("ok", "failing", "overdue", "taken over", "off")


class Exposition:
    """The numbers of one process, as text."""

    def __init__(
        self,
        metrics: Metrics,
        ingest: Ingest,
        answers: Answers,
        databases: Sequence[Database],
    ) -> None:
        self._registry = metrics.registry
        self._registry.register(_Observed(metrics, ingest, answers, databases))

    def text(
        self, accept: str, jobs: Iterable[str] | None, alerts: Sequence[asyncpg.Record] | None, edition: str
    ) -> tuple[bytes, str]:
        """All of it as `accept` wants it, OpenMetrics or Prometheus' own text; and its media type.

        jobs   the state of each job in the background; None: the database is away
        alerts how many there are of each rule, severity and state, each row with the clock of their evaluation;
               None: it is not known
        """
        encode, media_type = choose_encoder(accept)
        return encode(_Scrape(self._registry, jobs, alerts, edition)), media_type


class _Scrape(Collector):
    """The registry, and what only the database knows."""

    def __init__(
        self,
        registry: CollectorRegistry,
        jobs: Iterable[str] | None,
        alerts: Sequence[asyncpg.Record] | None,
        edition: str,
    ) -> None:
        self._registry = registry
        self._jobs = jobs
        self._alerts = alerts
        self._edition = edition

    def collect(self) -> Iterator[Metric]:
        yield from self._registry.collect()
        yield InfoMetricFamily("linkbeat", "Version and edition.", {"version": __version__, "edition": self._edition})
        yield GaugeMetricFamily("linkbeat_database_up", "1: the database answers.", float(self._jobs is not None))
        if self._jobs is not None:
            found = Counter(self._jobs)
            jobs = GaugeMetricFamily("linkbeat_jobs", "Jobs in the background, by state.", labels=["state"])
            for state in JOB_STATES:
                jobs.add_metric([state], found[state])
            yield jobs
        if self._alerts:
            yield from _of_alerts(self._alerts)


def _of_alerts(rows: Sequence[asyncpg.Record]) -> Iterator[Metric]:
    """Counts by rule, because /metrics names no server."""
    yield GaugeMetricFamily(
        "linkbeat_alert_evaluation_seconds", "How long evaluating alerts last took.", rows[0]["took_seconds"]
    )
    if rows[0]["evaluated_at"] is not None:
        yield GaugeMetricFamily(
            "linkbeat_alert_evaluated_timestamp_seconds", "When alerts were last evaluated, by any process.",
            rows[0]["evaluated_at"].timestamp(),
        )  # fmt: skip
    alerts = GaugeMetricFamily(
        "linkbeat_alerts", "Alerts that fire, or are about to.", labels=["alertname", "severity", "alertstate"]
    )
    for row in rows:
        if row["rule_id"] is not None:
            alerts.add_metric([row["rule_id"], row["severity"], row["state"]], row["alerts"])
    yield alerts


class _Observed(Collector):
    """Numbers that others keep."""

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
            "linkbeat_heartbeats", "Heartbeats acknowledged, by what they were.", "result",
            {"stored": counts["heartbeats"] - counts["duplicates"], "duplicate": counts["duplicates"]},
        )  # fmt: skip
        yield _counter(
            "linkbeat_heartbeats_conflicting", "Of the duplicates, those whose values differ.", None,
            {"": counts["conflicts"]},
        )  # fmt: skip
        yield _counter(
            "linkbeat_heartbeats_rejected", "Heartbeats not taken, by reason.", "reason", self._metrics.rejected
        )
        failures = {name.replace(" ", "_"): n for name, n in counts.items() if name.startswith(("retry ", "refused "))}
        yield _counter("linkbeat_ingest_failures", "Batches that the database did not take at once.", "kind", failures)
        yield GaugeMetricFamily(
            "linkbeat_ingest_queue_heartbeats", "Heartbeats that wait for the database.", ingest.queued
        )
        yield GaugeMetricFamily("linkbeat_ingest_up", "1: heartbeats can be written.", float(ingest.is_connected))
        yield _counter(
            "linkbeat_read_queries", "Statements that reads have sent to the database.", None,
            {"": sum(one.queries for one in databases)},
        )  # fmt: skip
        yield _counter(
            "linkbeat_read_failures", "Those of them that were not answered in time.", None,
            {"": sum(one.failures for one in databases)},
        )  # fmt: skip
        told = {name: self._answers.counts[name] for name in ("hits", "misses", "not_modified")}
        yield _counter("linkbeat_answers", "Requests for answers that are kept.", "result", told)


def _counter(name: str, words: str, label: str | None, values: "Counter[str] | dict[str, int]") -> Metric:
    family = CounterMetricFamily(name, words, labels=[label] if label else [])
    for value, count in sorted(values.items()):
        family.add_metric([value] if label else [], count)
    return family
