"""Alerts as text for people: the subject and the body of a mail, and what a service of Apprise's shows."""

from datetime import datetime
from zoneinfo import ZoneInfo

from service.alerts.channels.message import Alert, Message

MAX_SUBJECT = 200
MAX_NOTE = 2_000
_WORDS = {"firing": "firing", "resolved": "resolved", "closed": "closed", "flapping": "flapping"}


def subject(message: Message) -> str:
    """One line: the alert, or how many there are of each state."""
    if message.total == 1 and len(message.alerts) == 1:
        alert = message.alerts[0]
        line = f"[{_state(alert)}] {alert.rule}{_of(alert)}"
    else:
        counts = {state: sum(one.state == state for one in message.alerts) for state in _WORDS}
        parts = [f"{count} {_WORDS[state]}" for state, count in counts.items() if count]
        line = f"{message.total} alerts: {', '.join(parts)}"
        line += ", and more" if message.total > len(message.alerts) else ""
    return line[:MAX_SUBJECT]


def text(message: Message, time_zone: str) -> str:
    """The body, a paragraph per alert; times by the channel's time zone."""
    zone = ZoneInfo(time_zone)
    paragraphs = [_paragraph(one, zone) for one in message.alerts]
    if message.total > len(message.alerts):
        paragraphs.append(f"and {message.total - len(message.alerts)} more")
    return "\n\n".join(paragraphs) + "\n"


def _paragraph(alert: Alert, zone: ZoneInfo) -> str:
    lines = [f"{alert.rule}{_of(alert)}: {_state(alert)}"]
    if measured := measure(alert.kind, alert.value):
        lines.append(measured)
    if alert.since is not None:
        lines.append(f"from {_time(alert.since, zone)}" + (f" to {_time(alert.until, zone)}" if alert.until else ""))
    if alert.reason:
        lines.append(alert.reason)
    if alert.note:
        lines.append(alert.note[:MAX_NOTE])
    if alert.runbook:
        lines.append(alert.runbook)
    return "\n".join(lines)


def _state(alert: Alert) -> str:
    return f"{_WORDS[alert.state]}, {alert.severity}" if alert.state == "firing" else _WORDS[alert.state]


def _of(alert: Alert) -> str:
    return " ".join(part for part in (" on" if alert.server_id else "", alert.server_id, alert.subject) if part)


def _time(at: datetime, zone: ZoneInfo) -> str:
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}"


def measure(kind: str, value: float | None) -> str:
    """The value with its unit; "" where there is none."""
    if value is None:
        return ""
    if kind == "silent":
        return f"silent for {value:.0f} seconds"
    if kind == "rate":
        return f"{_bits(value)}/s"
    if kind == "quota":
        return f"{value:.1f} % of the quota"
    return f"value {value:.15g}"


def _bits(bps: float) -> str:
    for unit in ("bit", "kbit", "Mbit", "Gbit", "Tbit"):
        if abs(bps) < 1_000 or unit == "Tbit":
            break
        bps /= 1_000
    return f"{bps:.4g} {unit}"
