"""Signed texts: session cookies, sign-in codes and links to pictures, by itsdangerous (HMAC-SHA-256).

A text is `<token id>.<expiry in microseconds since 1970>.<signature>`; for the fleet key, the id is empty. Each
purpose has a key of its own, derived from the secret key, so a text for one purpose is invalid for another.
"""

from hashlib import blake2b, sha256
from typing import NamedTuple

import msgspec
from itsdangerous import BadSignature, Signer

_MOST_CHARACTERS = 128  # a token's id, 16 digits and 43 letters are 73


class Signed(NamedTuple):
    """The contents of a valid text. ends_at: seconds since 1970; the caller compares it with the time."""

    token_id: str
    ends_at: float


class Signing:
    """Signs and reads; every process with the same secret key and fleet key reads the same texts."""

    def __init__(self, secret: bytes, fleet_key: str) -> None:
        """`secret`: 64 bytes. A text that was signed for the fleet key is invalid for another one."""
        self._secret = blake2b(secret, person=b"linkbeat signing").digest()
        self._fleet_key = fleet_key

    def sign(self, token_id: str, ends_at: float, *purpose: str | None) -> str:
        """A text for that purpose, which may have several parts; `ends_at` in seconds since 1970."""
        return self._signer(token_id, purpose).sign(f"{token_id}.{int(ends_at * 1e6)}").decode()

    def read(self, text: str, *purpose: str | None) -> Signed | None:
        """The arguments of `sign`; None for a text that `sign` did not make for that purpose."""
        # itsdangerous encodes the text first, and would raise UnicodeEncodeError for a lone surrogate.
        if len(text) > _MOST_CHARACTERS or not text.isascii():
            return None
        signer = self._signer(text.partition(".")[0], purpose)
        try:
            signed = signer.unsign(text)
        except BadSignature:
            return None
        # base64 ignores foreign characters and the spare bits of the last letter: without this check, a session that
        # was signed out would be valid in another spelling.
        if signer.sign(signed) != text.encode():
            return None
        token_id, _, ends = signed.decode().partition(".")
        return Signed(token_id, int(ends) / 1e6)

    def _signer(self, token_id: str, purpose: tuple[str | None, ...]) -> Signer:
        # As JSON, in which different purposes are never the same text.
        salt = msgspec.json.encode([*purpose, None if token_id else self._fleet_key])
        return Signer(self._secret, salt, key_derivation="hmac", digest_method=sha256)
