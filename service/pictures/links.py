"""Links to pictures that carry their own right to be seen, so that no token is needed in an `<img>`.

A link is signed for one picture (service/access/signing.py). It is valid until it expires, and while the token that
made it is: with the token, all its links end. Nothing is stored.
"""

import time
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from service.access.signing import Signing
from service.access.tokens import Tokens
from service.http.errors import Problem
from service.wire import ServerId

# A picture stands in a page that nobody looks after: a year is longer than the page is of interest, or the fault is
# noticed. What gets known is one curve, and the token that made it ends it at any moment.
DEFAULT_DAYS = 365
MOST_DAYS = 3650  # as of tokens
DAY_SECONDS = 86_400

Metric = Literal["network", "cpu", "memory", "disk", "temperature", "filesystem"]


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
        self._signing = Signing(secret, fleet_key)

    def sign(self, picture: Picture, token_id: str, expires: int) -> str:
        """A link to that picture, until `expires`, in seconds since 1970; of the fleet key, the token's id is empty."""
        return self._signing.sign(token_id, expires, "picture", *picture)

    async def maker(self, picture: Picture, link: str, tokens: Tokens) -> str:
        """The id of the token that the link was made with. Raises Problem (403; 503 where that cannot be known)."""
        found = self._signing.read(link, "picture", *picture)
        if found is None:
            raise Problem("forbidden", "this link is not one to this picture")
        if found.ends_at <= time.time():
            raise Problem("forbidden", "this link has expired")
        if found.token_id and await tokens.of_id(found.token_id) is None:
            raise Problem("forbidden", "the token that this link was made with is not valid any more")
        return found.token_id
