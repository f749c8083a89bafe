"""Alertmanager: every instance is told of all alerts that fire, again and again, as Prometheus does it.

An instance forgets an alert at its `endsAt`. So alerts that fire are sent every minute with an end four minutes ahead:
where Linkbeat stops, they end by themselves. Alerts that are over are repeated for 15 minutes, for an instance that was
away when they ended (https://prometheus.io/docs/alerting/latest/alerts_api/).
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
_BATCH = 500  # alerts of one request
_HEADERS = {"Content-Type": "application/json"}


async def send(network: Network, channel: AlertmanagerChannel, alerts: list[Alert], now: datetime) -> Outcome:
    """Tells every instance. Delivered where one of them took all: those that were away are told a minute later.

    now   by the database's clock, as the alerts' own times are
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
    """A PostableAlert. Its labels are what Alertmanager tells alerts apart by, and stay the same until it ends."""
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
    }
    return {
        "labels": {name: value for name, value in labels.items() if value},
        "annotations": {name: value for name, value in annotations.items() if value},
        "startsAt": alert.since or now,
        "endsAt": (alert.until or now) if is_over else now + _FIRING_FOR,
    }
