"""Applies LINKBEAT_ALERTS_FILE again at SIGHUP."""

import asyncio
import logging
import signal
from contextlib import suppress
from pathlib import Path

import asyncpg

from service.alerts import file
from service.background import BackgroundTask
from service.database.pool import CONNECT_SECONDS, UNREACHABLE
from service.settings import Settings, SettingsError

log = logging.getLogger("linkbeat")

LIMIT_SECONDS = 30.0
RETRY_SECONDS = 5.0


class FollowedFile(BackgroundTask):
    """Applies the file at SIGHUP. An invalid file changes nothing, and its error is logged."""

    def __init__(self, url: str, settings: Settings) -> None:
        super().__init__("alerts file")
        self._url = url
        self._settings = settings
        self._asked = asyncio.Event()

    async def _run(self) -> None:
        if not self._settings.alerts_file:
            return
        loop = asyncio.get_running_loop()
        with suppress(ValueError, RuntimeError):  # not the main thread: embedded in another program
            loop.add_signal_handler(signal.SIGHUP, self._asked.set)
        try:
            while True:
                await self._asked.wait()
                self._asked.clear()
                try:
                    await apply(self._url, self._settings)
                except SettingsError as raised:
                    log.error("%s; alert rules and channels are unchanged", raised)
                except (*UNREACHABLE, asyncpg.PostgresError) as raised:
                    log.warning("the alerts file was not applied, retrying in %.0f s: %s", RETRY_SECONDS, raised)
                    loop.call_later(RETRY_SECONDS, self._asked.set)
        finally:
            with suppress(ValueError, RuntimeError):
                loop.remove_signal_handler(signal.SIGHUP)


async def apply(url: str, settings: Settings) -> None:
    """Applies the file named in the settings and logs the changes. Raises SettingsError if the file is invalid."""
    # In a thread: reading may block on a disk that does not respond.
    wanted = await asyncio.to_thread(
        file.read, Path(settings.alerts_file), allows_private=settings.alert_private_addresses
    )
    connection = await asyncpg.connect(
        url, timeout=CONNECT_SECONDS, command_timeout=LIMIT_SECONDS,
        server_settings={"application_name": "linkbeat alerts file", "lock_timeout": "10s"},
    )  # fmt: skip
    try:
        made = await file.apply(connection, wanted)
    finally:
        connection.terminate()
    log.info("%s: %s", settings.alerts_file, ", ".join(map(str, made)) or "nothing to change")
