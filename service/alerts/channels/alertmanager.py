"""Alertmanager: sends all firing alerts repeatedly to every instance, as Prometheus does.

An instance forgets an alert at its `endsAt`. So firing alerts are sent every minute with an end four minutes ahead: if
Linkbeat stops, they end by themselves. Resolved alerts are repeated for 15 minutes, for an instance that was down when
they ended (https://prometheus.io/docs/alerting/latest/alerts_api/).
"""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import msgspec

from service.alerts.channels import http
from service.alerts.channels.kinds import AlertmanagerChannel
from service.alerts.channels.message import Alert
from service.alerts.channels.network import Network
from service.alerts.channels.outcome import Outcome

RESEND_SECONDS = 60.0
RESOLVED_FOR = timedelta(minutes=15)
_FIRING_FOR = timedelta(minutes=4)
_BATCH = 500  # alerts per request
_HEADERS = {"Content-Type": "application/json"}


async def send(network: Network, channel: AlertmanagerChannel, alerts: list[Alert], now: datetime) -> Outcome:
    """Sends to every instance. Delivered if one of them accepted all alerts; the others get them a minute later.

    now   by the database's clock, like the times of the alerts
    """
    outcomes = await asyncio.gather(*(_tell(network, url, alerts, now) for url in channel.urls))
    return next((one for one in outcomes if one.is_delivered), outcomes[0])


async def _tell(network: Network, url: str, alerts: list[Alert], now: datetime) -> Outcome:
    outcome = Outcome()
    for first in range(0, max(len(alerts), 1), _BATCH):
        body = msgspec.json.encode([posted(one, now) for one in alerts[first : first + _BATCH]])
        outcome = await http.request(network, "POST", f"{url.rstrip('/')}/api/v2/alerts", body, _HEADERS)
        if not outcome.is_delivered:
            break
    return outcome


def posted(alert: Alert, now: datetime) -> dict[str, Any]:
    """A PostableAlert. Alertmanager identifies an alert by its labels, so they do not change until it ends."""
    is_over = alert.state in ("resolved", "closed")
    labels = {
        "alertname": alert.rule or "linkbeat",
        "severity": alert.severity,
        "server_id": alert.server_id or "",
        "subject": alert.subject or "",
        "episode": alert.episode,
    }
    annotations = {
        "value": "" if alert.value is None else f"{alert.value:.15g}",
        "reason": alert.reason or "",
        "description": alert.note or "",
        "runbook_url": alert.runbook or "",
    }
    return {
        "labels": {name: value for name, value in labels.items() if value},
        "annotations": {name: value for name, value in annotations.items() if value},
        "startsAt": alert.since or now,
        "endsAt": (alert.until or now) if is_over else now + _FIRING_FOR,
    }
