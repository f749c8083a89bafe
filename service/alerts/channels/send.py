"""Sends a message through its channel."""

from datetime import datetime

from service.alerts.channels import alertmanager, apprise, mail, ping, webhook
from service.alerts.channels.kinds import AlertmanagerChannel, AppriseChannel, Channel, EmailChannel, WebhookChannel
from service.alerts.channels.message import Message
from service.alerts.channels.network import Network
from service.alerts.channels.outcome import Outcome


async def send(network: Network, channel: Channel, message: Message, now: datetime) -> Outcome:
    """One attempt with a deadline; a failure is in the outcome. `now`: by the database's clock."""
    if isinstance(channel, WebhookChannel):
        return await webhook.send(network, channel, message)
    if isinstance(channel, EmailChannel):
        return await mail.send(network, channel, message)
    if isinstance(channel, AlertmanagerChannel):
        return await alertmanager.send(network, channel, message.alerts, now)
    if isinstance(channel, AppriseChannel):
        return await apprise.send(network, channel, message)
    return await ping.send(network, channel)
