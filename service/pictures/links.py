"""Links to pictures that carry their own right to be seen, so that no token is needed in an `<img>`.

A link is signed (HMAC-SHA-256) with a key that is derived for this from the secret key. It is good for one picture, to
a moment, and while the token is valid that it was made with: with the token, all its links end. Nothing is stored.
"""

import hmac
import time
from base64 import urlsafe_b64encode
from hashlib import blake2b
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from service.access.tokens import MAX_AGE_SECONDS, Tokens
from service.http.errors import Problem
from service.wire import ServerId

# A picture stands in a page that nobody looks after: a year is longer than the page is of interest, or the fault is
# noticed. What gets known is one curve, and the token that made it ends it at any moment.
DEFAULT_DAYS = 365
MOST_DAYS = 3650  # as of tokens
DAY_SECONDS = 86_400
_SIGNATURE_BYTES = 16  # 128 bits, half of the HMAC (RFC 2104, 5): a link is to be carried about


Metric = Literal["network", "cpu", "memory", "disk", "filesystem"]


class NewPicture(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A picture that is to be seen without a token.

    interface        of metric network; without it, the server's traffic as a whole
    mount_point      of metric filesystem
    expires_in_days  without it, 365; the link ends with the token that makes it, whatever is said here
    """

    server_id: ServerId
    metric: Metric
    interface: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    mount_point: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None
    expires_in_days: Annotated[float, Meta(gt=0, le=MOST_DAYS)] | None = None


class Picture(NamedTuple):
    """What a link shows: one metric of one server. series: the interface, or the mount point; None: the whole."""

    server_id: str
    metric: str
    series: str | None


class Links:
    """Makes links and checks them: what is signed here, every process with the same secret key takes."""

    def __init__(self, secret: bytes, fleet_key: str) -> None:
        """`secret`: 64 bytes. With the fleet key end the links that were made with it."""
        self._key = blake2b(secret, digest_size=32, person=b"linkbeat picture").digest()
        self._fleet = blake2b(fleet_key.encode(), key=self._key, digest_size=16).hexdigest()

    def sign(self, picture: Picture, token_id: str, expires: int) -> str:
        """`<token id>.<seconds since 1970 at which it ends>.<signature>`; of the fleet key, the id is empty."""
        return f"{token_id}.{expires}.{self._signature(picture, token_id, expires)}"

    async def maker(self, picture: Picture, link: str, tokens: Tokens) -> str:
        """The id of the token that the link was made with. Raises Problem (403; 503 where that cannot be known)."""
        token_id, _, rest = link.partition(".")
        expires, _, signature = rest.partition(".")
        # isdecimal: int() takes signs and spaces too, and any length.
        is_formed = link.isascii() and expires.isdecimal() and len(expires) <= 12
        # Compared as text: of the last of its letters, base64 does not read all bits.
        right = self._signature(picture, token_id, int(expires)) if is_formed else ""
        if not (is_formed and hmac.compare_digest(signature, right)):
            raise Problem("forbidden", "this link is not one to this picture")
        if int(expires) <= time.time():
            raise Problem("forbidden", "this link has expired")
        if token_id:
            await tokens.at_most_old(MAX_AGE_SECONDS)
            if tokens.of_id(token_id) is None:
                raise Problem("forbidden", "the token that this link was made with is not valid any more")
        return token_id

    def _signature(self, picture: Picture, token_id: str, expires: int) -> str:
        # As JSON, in which no two different pictures are the same text.
        signed = msgspec.json.encode([*picture, token_id or self._fleet, expires])
        digest = hmac.digest(self._key, signed, "sha256")[:_SIGNATURE_BYTES]
        return urlsafe_b64encode(digest).rstrip(b"=").decode()
