"""Ping, a dead man's switch: whoever expects it raises the alarm when it stops."""

from service.alerts.channels import http
from service.alerts.channels.kinds import PingChannel
from service.alerts.channels.network import Network
from service.alerts.channels.outcome import Outcome


async def send(network: Network, channel: PingChannel) -> Outcome:
    """GETs the URL once."""
    return await http.request(network, "GET", channel.url)
