"""Alerts as text for people: subject and body of mails and of Apprise messages."""

from datetime import datetime
from zoneinfo import ZoneInfo

from service.alerts.channels.message import Alert, Message

MAX_SUBJECT = 200


def subject(message: Message) -> str:
    """One line: the alert, or the most severe of several and their number."""
    if message.total == 1:
        alert = message.alerts[0]
        line = f"[{_state(alert)}] {alert.rule or 'Linkbeat'}{_of(alert)}"
    else:
        first = message.alerts[0]
        line = f"[{_state(first)}] {message.total} alerts, {first.rule or 'Linkbeat'}{_of(first)} and others"
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in line)[:MAX_SUBJECT]


def text(message: Message, time_zone: str) -> str:
    """The body, one paragraph per alert; times in the time zone of the channel."""
    zone = ZoneInfo(time_zone)
    paragraphs = []
    explained = set()
    for alert in message.alerts:
        lines = _lines(alert, zone)
        if alert.rule not in explained:
            # Once for all alerts of the rule, so that twenty of them do not repeat it.
            lines += [line for line in (alert.note, alert.runbook) if line]
            explained.add(alert.rule)
        paragraphs.append("\n".join(lines))
    if message.total > len(message.alerts):
        paragraphs.append(f"and {message.total - len(message.alerts)} more")
    return "\n\n".join(paragraphs) + "\n"


def _lines(alert: Alert, zone: ZoneInfo) -> list[str]:
    lines = [f"{alert.rule or 'Linkbeat'}{_of(alert)}: {_state(alert)}"]
    if alert.reason:
        lines.append(alert.reason)
    if alert.value is not None:
        peak = "" if alert.peak in (None, alert.value) else f", peak {alert.peak:,.15g}"
        lines.append(f"value {alert.value:,.15g}{peak}")
    if alert.since is not None:
        lines.append(f"from {_time(alert.since, zone)}" + (f" to {_time(alert.until, zone)}" if alert.until else ""))
    return lines


def _state(alert: Alert) -> str:
    words = [alert.state]
    if alert.state == "firing":
        words.append(alert.severity)
    words += ["flapping"] if alert.is_flapping else []
    words += ["repeated"] if alert.is_repeated else []
    words += ["in the past"] if alert.is_late else []
    return ", ".join(words)


def _of(alert: Alert) -> str:
    return " ".join(part for part in (" on" if alert.server_id else "", alert.server_id, alert.subject) if part)


def _time(at: datetime, zone: ZoneInfo) -> str:
    return f"{at.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}"
