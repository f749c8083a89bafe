"""Signed links to pictures, so that an `<img>` needs no token.

A link is signed for one picture (service/access/signing.py). It is valid until it expires or the token that made it is
revoked. Nothing is stored.
"""

import time
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from service.access.signing import Signing
from service.access.tokens import Tokens
from service.http.errors import Problem
from service.wire import ServerId

# Pictures are embedded in pages that nobody maintains: within a year, the page is obsolete or the missing picture is
# noticed. A link reveals one curve, and revoking the token ends it at any time.
DEFAULT_DAYS = 365
MOST_DAYS = 3650  # as for tokens
DAY_SECONDS = 86_400

Metric = Literal["network", "cpu", "memory", "disk", "temperature", "filesystem"]


class NewPicture(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A picture to link to.

    interface        for metric network; default: all traffic of the server
    mount_point      for metric filesystem
    expires_in_days  default 365; the link always ends with the token that makes it
    """

    server_id: ServerId
    metric: Metric
    interface: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    mount_point: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None
    expires_in_days: Annotated[float, Meta(gt=0, le=MOST_DAYS)] | None = None


class Picture(NamedTuple):
    """The picture of a link: one metric of one server. series: the interface or the mount point; None: all traffic."""

    server_id: str
    metric: str
    series: str | None


class Links:
    """Creates and checks links. Every process with the same secret key accepts them."""

    def __init__(self, secret: bytes, fleet_key: str) -> None:
        """`secret`: 64 bytes. Links made with the fleet key end when that key changes."""
        self._signing = Signing(secret, fleet_key)

    def sign(self, picture: Picture, token_id: str, expires: int) -> str:
        """A link to the picture, valid until `expires`, in seconds since 1970; for the fleet key, the token's id is
        empty."""
        return self._signing.sign(token_id, expires, "picture", *picture)

    async def maker(self, picture: Picture, link: str, tokens: Tokens) -> str:
        """The id of the token that made the link. Raises Problem (403; 503 if it cannot be checked)."""
        found = self._signing.read(link, "picture", *picture)
        if found is None:
            raise Problem("forbidden", "this link is not valid for this picture")
        if found.ends_at <= time.time():
            raise Problem("forbidden", "this link has expired")
        if found.token_id and await tokens.of_id(found.token_id) is None:
            raise Problem("forbidden", "the token that this link was made with is not valid any more")
        return found.token_id
