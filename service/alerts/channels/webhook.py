"""Webhook: POST with JSON, signed if the channel has a secret."""

import hmac
from hashlib import sha256

from service.alerts.channels import http
from service.alerts.channels.kinds import WebhookChannel
from service.alerts.channels.message import Message
from service.alerts.channels.network import Network
from service.alerts.channels.outcome import Outcome

SIGNATURE = "X-Linkbeat-Signature"


async def send(network: Network, channel: WebhookChannel, message: Message) -> Outcome:
    """Delivers once. Every attempt for a message is the same request, byte for byte."""
    headers = {"Content-Type": "application/json", "Idempotency-Key": message.key}
    if channel.secret:
        headers[SIGNATURE] = signature(channel.secret, message.body)
    return await http.request(network, "POST", channel.url, message.body, headers)


def signature(secret: str, body: bytes) -> str:
    """HMAC-SHA256 of the body, as `sha256=<hex>`."""
    return f"sha256={hmac.new(secret.encode(), body, sha256).hexdigest()}"
