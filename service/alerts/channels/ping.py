"""Ping, a dead man's switch: the receiver raises an alarm when the pings stop."""

from service.alerts.channels import http
from service.alerts.channels.kinds import PingChannel
from service.alerts.channels.network import Network
from service.alerts.channels.outcome import Outcome


async def send(network: Network, channel: PingChannel) -> Outcome:
    """GETs the URL once."""
    return await http.request(network, "GET", channel.url)
