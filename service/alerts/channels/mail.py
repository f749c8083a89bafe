"""Mail by SMTP, in a thread pool: smtplib blocks."""

import asyncio
import smtplib
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.message import EmailMessage
from email.utils import format_datetime

from service.alerts.channels.kinds import EmailChannel, smtp_port
from service.alerts.channels.message import Message
from service.alerts.channels.network import Network, Unreachable, reason, tls_context
from service.alerts.channels.outcome import Outcome
from service.alerts.channels.text import subject, text

DEADLINE_SECONDS = 30.0
_threads = ThreadPoolExecutor(8, "linkbeat mail")


async def send(network: Network, channel: EmailChannel, message: Message) -> Outcome:
    """Sends the message once. Every attempt has the same Message-ID."""
    try:
        addresses = await network.addresses(channel.host, smtp_port(channel))
    except Unreachable as raised:
        return Outcome(error=str(raised))
    session = _Session(channel, addresses)
    sending = asyncio.get_running_loop().run_in_executor(_threads, session.send, written(channel, message))
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await asyncio.shield(sending)
    except TimeoutError:
        return Outcome(error=f"no response within {DEADLINE_SECONDS:g} seconds")
    finally:
        session.end()  # also wakes the thread


def written(channel: EmailChannel, message: Message) -> bytes:
    """The bytes of the mail; they depend only on the message and the channel."""
    mail = EmailMessage()
    mail["From"] = channel.sender
    mail["To"] = ", ".join(channel.recipients)
    mail["Subject"] = subject(message)
    mail["Date"] = format_datetime(message.created_at)
    mail["Message-ID"] = f"<{message.key}.linkbeat@{channel.sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(text(message, channel.time_zone), cte="quoted-printable")
    return mail.as_bytes(policy=mail.policy.clone(linesep="\r\n"))


class _Session:
    """One delivery, in one thread; `end` may be called from another."""

    def __init__(self, channel: EmailChannel, addresses: list[str]) -> None:
        self._channel = channel
        self._addresses = addresses
        self._socket: socket.socket | None = None
        self._has_ended = False

    def end(self) -> None:
        self._has_ended = True
        if self._socket is not None:
            with suppress(OSError):  # already closed
                self._socket.shutdown(socket.SHUT_RDWR)

    def send(self, mail: bytes) -> Outcome:
        try:
            smtp = self._connect()
        except (OSError, smtplib.SMTPException) as raised:
            return self._failed(raised)
        try:
            return self._hand_over(smtp, mail)
        except (OSError, smtplib.SMTPException, ValueError) as raised:
            return self._failed(raised)
        finally:
            smtp.close()

    def _connect(self) -> "_Smtp":
        channel, port = self._channel, smtp_port(self._channel)
        failure: OSError = TimeoutError()
        for address in self._addresses:
            if self._has_ended:
                break
            try:
                # To the checked address, not the name: see service/alerts/channels/network.py.
                connected = socket.create_connection((address, port), timeout=DEADLINE_SECONDS / 2)
            except OSError as raised:
                failure = raised
                continue
            self._socket = connected
            try:
                if channel.security == "tls":
                    connected = tls_context().wrap_socket(connected, server_hostname=channel.host)
                    self._socket = connected
                return _Smtp(connected, channel.host, port)
            except BaseException:
                connected.close()
                raise
        raise failure

    def _hand_over(self, smtp: "_Smtp", mail: bytes) -> Outcome:
        channel = self._channel
        smtp.ehlo_or_helo_if_needed()
        if channel.security == "starttls":
            smtp.starttls(context=tls_context())
            self._socket = smtp.sock
        if channel.username:
            smtp.login(channel.username, channel.password or "")
        smtp.sendmail(channel.sender, channel.recipients, mail)
        if self._has_ended:
            return Outcome(error="no response in time")
        with suppress(OSError, smtplib.SMTPException):  # the server has the message
            smtp.quit()
        return Outcome(250)

    def _failed(self, raised: Exception) -> Outcome:
        """The code of the reply, without its text: the text may repeat the request, including the password."""
        host = self._channel.host
        code = None
        if isinstance(raised, smtplib.SMTPRecipientsRefused):
            code = min(reply[0] for reply in raised.recipients.values())
            error = f"refused every recipient: {code}"
        elif isinstance(raised, smtplib.SMTPResponseException):
            code = raised.smtp_code
            is_login = isinstance(raised, smtplib.SMTPAuthenticationError)
            error = "refused the login" if is_login else f"answered {code}"
        elif isinstance(raised, smtplib.SMTPNotSupportedError):
            error = f"does not offer {'STARTTLS' if self._channel.security == 'starttls' else 'a login'}"
        elif isinstance(raised, OSError) and not isinstance(raised, smtplib.SMTPException):
            error = f"port {smtp_port(self._channel)}: {reason(raised)}"
        else:
            error = "ended the connection"
        return Outcome(code, f"{host} {error}")


class _Smtp(smtplib.SMTP):
    """smtplib on an existing connection."""

    def __init__(self, connected: socket.socket, host: str, port: int) -> None:
        # An address literal (RFC 5321 4.1.3): smtplib would look up a name in DNS, which may be slow.
        own = connected.getsockname()[0].partition("%")[0]
        super().__init__(local_hostname=f"[IPv6:{own}]" if ":" in own else f"[{own}]", timeout=DEADLINE_SECONDS / 2)
        self._connected = connected
        self._host = host  # whose certificate STARTTLS expects
        code, _ = self.connect(host, port)
        if code != 220:
            raise smtplib.SMTPConnectError(code, "")

    def _get_socket(self, *_: object) -> socket.socket:
        return self._connected
