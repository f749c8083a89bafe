"""Metrics for Prometheus: of the process, ingest, the response cache, the pools and the database."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import asyncpg
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from agent import __version__
from service.background import BackgroundTask
from service.cache import Answers
from service.database.pool import Database
from service.database.replicas import Replicas
from service.http.log_limit import limited
from service.ingest.commit import Ingest
from service.metrics import Metrics
from service.operations.shared_numbers import SHARE_SECONDS, SharedNumbers

FAILURES = ("retry ", "refused ", "reconnect ", "seal_", "not_flushed", "not_replicated", "other_server")
JOB_STATES = ("ok", "failing", "overdue", "taken over", "off")


class Exposition:
    """The numbers of one process, or of all that serve on its port, as text."""

    def __init__(
        self,
        metrics: Metrics,
        ingest: Ingest,
        answers: Answers,
        databases: Sequence[Database],
        shared: SharedNumbers | None = None,
        replicas: Replicas | None = None,
    ) -> None:
        """`shared`: with the other processes on this port, where there are some."""
        self._registry = metrics.registry
        self._registry.register(_Observed(metrics, ingest, answers, databases))
        if replicas:
            self._registry.register(_Read(replicas))
        self._shared = shared
        self._evaluated: Metric | None = None

    def share(self, *, is_last: bool = False) -> None:
        """Puts this process's numbers down for the others, where there are some. Raises OSError."""
        if self._shared:
            self._shared.write(self._registry.collect(), is_last=is_last)

    def text(
        self, accept: str, jobs: Iterable[str] | None, alerts: Sequence[asyncpg.Record] | None, edition: str
    ) -> tuple[bytes, str]:
        """The metrics in the format that `accept` requests, OpenMetrics or Prometheus' text format; and its media type.

        jobs     the state of each background job; None: the database is unavailable
        alerts   counts by rule, severity and state, each row with the clock of their evaluation; None: unknown
        """
        encode, media_type = choose_encoder(accept)
        self.share()  # nothing is told that does not stand in the file: the sum would fall with this process
        own = self._shared.of_all() if self._shared else self._registry.collect()
        # While the database is away, the last evaluation that was read shows how old it gets.
        self._evaluated = _evaluated(alerts) or self._evaluated
        return encode(_Scrape(own, jobs, alerts, self._evaluated, edition)), media_type


class Sharing(BackgroundTask):
    """Puts the numbers down again and again, and at the end."""

    def __init__(self, exposition: Exposition) -> None:
        super().__init__("numbers")
        self._exposition = exposition

    async def __aexit__(self, *of: object) -> None:
        await super().__aexit__(*of)
        self._share(is_last=True)

    async def _run(self) -> None:
        while True:
            self._share()
            await asyncio.sleep(SHARE_SECONDS)

    def _share(self, *, is_last: bool = False) -> None:
        try:
            self._exposition.share(is_last=is_last)
        except OSError as raised:
            limited(logging.WARNING, ("numbers",), "the numbers for /metrics cannot be shared: %s", raised)


class _Scrape(Collector):
    """What processes count, and what only the database knows."""

    def __init__(
        self,
        own: Iterable[Metric],
        jobs: Iterable[str] | None,
        alerts: Sequence[asyncpg.Record] | None,
        evaluated: Metric | None,
        edition: str,
    ) -> None:
        self._own = own
        self._jobs = jobs
        self._alerts = alerts
        self._evaluated = evaluated
        self._edition = edition

    def collect(self) -> Iterator[Metric]:
        yield from self._own
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
        if self._evaluated:
            yield self._evaluated
        if self._alerts:
            yield from _of_alerts(self._alerts)


def _evaluated(rows: Sequence[asyncpg.Record] | None) -> Metric | None:
    if not rows or rows[0]["evaluated_at"] is None:
        return None
    return GaugeMetricFamily(
        "linkbeat_alert_evaluated_timestamp_seconds", "When alerts were last evaluated, by any process.",
        rows[0]["evaluated_at"].timestamp(),
    )  # fmt: skip


def _of_alerts(rows: Sequence[asyncpg.Record]) -> Iterator[Metric]:
    """Counts by rule, because /metrics names no server."""
    yield GaugeMetricFamily(
        "linkbeat_alert_evaluation_seconds", "How long evaluating alerts last took.", rows[0]["took_seconds"]
    )
    yield GaugeMetricFamily("linkbeat_outbox_due", "Messages about alerts that wait to be delivered.", rows[0]["due"])
    yield GaugeMetricFamily(
        "linkbeat_outbox_oldest_seconds", "Age of the oldest message that waits; 0: none does.",
        rows[0]["oldest_seconds"],
    )  # fmt: skip
    yield GaugeMetricFamily(
        "linkbeat_outbox_given_up", "Messages of the last day that could not be delivered.", rows[0]["given_up"]
    )
    alerts = GaugeMetricFamily(
        "linkbeat_alerts", "Alerts that fire, or are about to.", labels=["alertname", "severity", "alertstate"]
    )
    for row in rows:
        if row["rule_id"] is not None:
            alerts.add_metric([row["rule_id"], row["severity"], row["state"]], row["alerts"])
    yield alerts


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


class _Read(Collector):
    """What replicas are read for."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas

    def collect(self) -> Iterator[Metric]:
        replicas = self._replicas
        behind = GaugeMetricFamily(
            "linkbeat_replica_behind_seconds", "How far a replica may be behind; +Inf: not known.", labels=["replica"]
        )
        for name, seconds in replicas.behind_seconds().items():
            behind.add_metric([name], seconds)
        yield behind
        yield _counter(
            "linkbeat_replica_reads", "Statements that a replica may answer, by the server that did.", "server",
            replicas.reads,
        )  # fmt: skip
        yield _counter(
            "linkbeat_replica_retries", "Those that another server answered, by the replica that could not.", "server",
            replicas.retries,
        )  # fmt: skip


def _counter(name: str, words: str, label: str | None, values: "Counter[str] | dict[str, int]") -> Metric:
    family = CounterMetricFamily(name, words, labels=[label] if label else [])
    for value, count in sorted(values.items()):
        family.add_metric([value] if label else [], count)
    return family
