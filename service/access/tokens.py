"""Tokens: their format, their storage, and a cache of all valid tokens.

A token is `lb_<kind>_<id>_<secret>`: a letter for its kind, an id of 12 characters, and 43 random characters, 256 bits.
The database stores the id and a keyed hash of the whole token; the key is not in the database.
"""

import asyncio
import logging
import secrets
import string
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import blake2b
from hmac import compare_digest
from typing import Literal

import asyncpg

from service.database.follow import PolledCache
from service.database.pool import Database
from service.http.errors import Problem

log = logging.getLogger("linkbeat")

Kind = Literal["server", "fleet", "read", "admin", "enrolment"]
LETTERS: dict[Kind, str] = {"server": "s", "fleet": "f", "read": "r", "admin": "a", "enrolment": "e"}
PREFIX = b"lb_"
_ID = slice(5, 17)
_ID_LETTERS = string.digits + string.ascii_lowercase
_SECRET_LETTERS = string.digits + string.ascii_letters
_LENGTH = 61

# While the database is unavailable, a token that another process revoked is accepted for this long at most.
MAX_AGE_SECONDS = 30.0
# A token that another process made may be used before the next poll: an unknown token triggers a refresh, at most this
# often.
MISSED_SECONDS = 0.1
NOTE_SECONDS = 60.0
COARSE_SECONDS = 300.0
PAGE = 5_000

CHANGED = """
SELECT token_id, kind, server_id, server_guid, hash, key_id, revision, revoked_at IS NULL AS is_valid,
       coalesce(extract(epoch FROM expires_at), 'infinity')::float8 AS expires_at,
       coalesce(extract(epoch FROM last_used_at), 0)::float8 AS last_used_at
FROM linkbeat.tokens WHERE revision > $1 ORDER BY revision LIMIT $2
"""
_NOTE = "SELECT linkbeat.note_token_use(ids => $1, times => $2, guids => $3)"


class Hasher:
    """The keyed hash of tokens."""

    def __init__(self, key: bytes) -> None:
        """`key`: 64 bytes."""
        self._key = key
        self.key_id = blake2b(key, digest_size=4, person=b"linkbeat key id").digest()

    def __call__(self, token: bytes) -> bytes:
        return blake2b(token, key=self._key, digest_size=32).digest()


class Made:
    """A new token. `text` is shown once; the other attributes are stored."""

    def __init__(self, kind: Kind, hasher: Hasher) -> None:
        self.token_id = "".join(secrets.choice(_ID_LETTERS) for _ in range(12))
        secret = "".join(secrets.choice(_SECRET_LETTERS) for _ in range(43))
        self.text = f"lb_{LETTERS[kind]}_{self.token_id}_{secret}"
        self.hash = hasher(self.text.encode())
        self.key_id = hasher.key_id


class Token:
    """A cached token; times in seconds since 1970."""

    __slots__ = ("_hash", "expires_at", "kind", "last_used_at", "server_guid", "server_id", "token_id")

    def __init__(
        self,
        token_id: str,
        kind: Kind,
        server_id: str | None,
        server_guid: str | None,
        hash_: bytes,
        expires_at: float,
        last_used_at: float,
    ) -> None:
        self.token_id = token_id
        self.kind = kind
        self.server_id = server_id
        self.server_guid = server_guid
        self._hash = hash_
        self.expires_at = expires_at
        self.last_used_at = last_used_at

    def is_of(self, digest: bytes) -> bool:
        """Compares in constant time, so that the time reveals nothing about the hash."""
        return compare_digest(self._hash, digest)

    def __repr__(self) -> str:
        return f"<token {self.token_id}, {self.kind} {self.server_id or ''}>"


# An unknown id is compared with this, so that it takes as long as a wrong secret.
_NOBODYS = Token("", "read", None, None, secrets.token_bytes(32), 0.0, 0.0)


class Tokens(PolledCache):
    """A cache of every valid token. An invalid token causes no query, so guesses cost the database nothing."""

    def __init__(self, database: Database, writing: Database, is_reachable: Callable[[], bool], hasher: Hasher) -> None:
        super().__init__(database, is_reachable, "tokens")
        self._writing = writing
        self._hasher = hasher
        self._of: dict[bytes, Token] = {}
        self._revision = 0
        self._used: set[Token] = set()
        self._noted = time.monotonic()
        self._is_key_doubted = False

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__(*_)
        if self._is_reachable():
            with suppress(Problem, asyncpg.PostgresError):
                await self.note_use()

    @staticmethod
    def is_well_formed(credential: bytes) -> bool:
        return len(credential) == _LENGTH and credential.startswith(PREFIX)

    def find(self, credential: bytes) -> Token | None:
        """The valid token with this text."""
        token = self._of.get(credential[_ID], _NOBODYS)
        return self._used_now(token) if token.is_of(self._hasher(credential)) else None

    async def of_id(self, token_id: str) -> Token | None:
        """The valid token with this id, for a session that was started with it (service/access/sessions.py).

        Raises Problem (503) if tokens cannot be checked because the database is unavailable.
        """
        await self.refresh_if_older(MAX_AGE_SECONDS)
        place = token_id.encode()
        if place not in self._of:
            await self.refresh_for_missing()
        token = self._of.get(place)
        return self._used_now(token) if token else None

    def _used_now(self, token: Token) -> Token | None:
        """The token, unless it has expired."""
        now = time.time()
        if token.expires_at <= now:
            return None
        if token.last_used_at < now - COARSE_SECONDS:
            token.last_used_at = now
            self._used.add(token)
        return token

    async def refresh_for_missing(self) -> None:
        """Refreshes for a token that was not found: another process may just have made it.

        Concurrent callers wait and share one refresh.
        """
        came = time.monotonic()
        await asyncio.sleep(max(0.0, self._seen + MISSED_SECONDS - came))
        with suppress(Problem):
            await self.refresh_if_older(time.monotonic() - came)

    def pin(self, token: Token, guid: str) -> None:
        """Binds the token to this GUID, unless another process has bound it to one in the database."""
        token.server_guid = guid
        token.last_used_at = time.time()
        self._used.add(token)
        # With the next poll: until it stands in the database, another process may pin another one.
        self._noted = float("-inf")

    async def take(self) -> None:
        while True:
            rows = await self._database.fetch(CHANGED, self._revision, PAGE)
            for row in rows:
                self._take(row)
            if len(rows) < PAGE:
                return

    def _take(self, row: asyncpg.Record) -> None:
        place = row["token_id"].encode()
        if row["key_id"] != self._hasher.key_id:
            self._of.pop(place, None)
            if row["is_valid"] and not self._is_key_doubted:
                self._is_key_doubted = True
                log.warning("tokens made with another LINKBEAT_SECRET_KEY, such as %s, are rejected", row["token_id"])
        elif not row["is_valid"]:
            self._of.pop(place, None)
        else:
            self._of[place] = Token(
                row["token_id"], row["kind"], row["server_id"], row["server_guid"], row["hash"],
                row["expires_at"], row["last_used_at"],
            )  # fmt: skip
        self._revision = row["revision"]

    async def after_poll(self) -> None:
        if time.monotonic() - self._noted >= NOTE_SECONDS:
            await self.note_use()

    async def note_use(self) -> None:
        """Writes when tokens were last used. Raises Problem (503) and keeps the values for the next attempt."""
        self._noted = time.monotonic()
        used = list(self._used)
        if used:
            await self._writing.fetch(
                _NOTE,
                [token.token_id for token in used],
                [datetime.fromtimestamp(token.last_used_at, UTC) for token in used],
                [token.server_guid for token in used],
            )
            self._used.difference_update(used)
