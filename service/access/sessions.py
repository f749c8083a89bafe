"""Sessions of browsers: a signed cookie that holds the id of a token, and no secret (service/access/signing.py).

A session is valid while its token is: Identity looks the token up with every request. Sessions that were signed out are
recorded in the database (service/access/ended_sessions.py).
"""

import time
from dataclasses import dataclass
from hashlib import blake2b

from litestar.types import Scope

from service.access.signing import Signing
from service.http.errors import Problem

SESSION_SECONDS = 7 * 86_400
CODE_SECONDS = 900
# Cookies ignore the port: a browser that signs in to several installations on one machine needs a name for each.
_COOKIE = "linkbeat_{}"
_LIFE = "; Path=/; HttpOnly; SameSite=Strict"


@dataclass(frozen=True, slots=True)
class Session:
    """The contents of a cookie or a code whose signature is valid.

    token_id  "" for the fleet key
    ends_at   seconds since 1970
    digest    identifies the session in the database once it has ended
    """

    token_id: str
    ends_at: float
    digest: bytes


class Sessions:
    """Makes and reads cookies, and the short-lived codes that `make run` prints.

    Every process with the same secret key accepts them.
    """

    def __init__(self, secret: bytes, key: str) -> None:
        """`secret`: 64 bytes that cookies are signed with; `key`: the fleet key; its sessions end when it changes."""
        self._signing = Signing(secret, key)
        self.cookie = _COOKIE.format(blake2b(secret, digest_size=4, person=b"linkbeat cookie").hexdigest())

    def start(self, token_id: str) -> str:
        """A new cookie's value."""
        # To the microsecond: no two sessions of a token are equal, so each can be signed out separately.
        return self._signing.sign(token_id, time.time() + SESSION_SECONDS, "session")

    def of(self, scope: Scope) -> Session | None:
        """The session of the request's cookie; None without a cookie that is valid."""
        text = self._sent(scope, self.cookie)
        return None if text is None else self._read(text, "session")

    def code(self) -> str:
        """A code that signs in as the fleet key, once and within CODE_SECONDS."""
        return self._signing.sign("", time.time() + CODE_SECONDS, "code")

    def of_code(self, text: str) -> Session | None:
        """The session that a code stands for; None if it is invalid. The caller ends the code with its first use."""
        return self._read(text, "code")

    def has_written(self, scope: Scope) -> bool:
        """Whether the browser has changed something within the last seconds, by whatever process."""
        return self._sent(scope, f"{self.cookie}_wrote") is not None

    def set_written(self, scope: Scope, seconds: int) -> str:
        """The Set-Cookie header that says so for so many seconds."""
        return f"{self.cookie}_wrote=1; Max-Age={seconds}{_LIFE}{_secure(scope)}"

    def _sent(self, scope: Scope, cookie: str) -> str | None:
        for name, value in scope["headers"]:
            if name == b"cookie":
                for one in value.decode("latin-1").split(";"):
                    of, _, text = one.strip().partition("=")
                    if of == cookie:
                        return text
        return None

    def set_cookie(self, scope: Scope, token_id: str) -> str:
        """The Set-Cookie header of a new session."""
        return f"{self.cookie}={self.start(token_id)}; Max-Age={SESSION_SECONDS}{_LIFE}{_secure(scope)}"

    def clear_cookie(self, scope: Scope) -> str:
        return f"{self.cookie}=; Max-Age=0{_LIFE}{_secure(scope)}"

    def _read(self, text: str, purpose: str) -> Session | None:
        found = self._signing.read(text, purpose)
        if found is None or found.ends_at <= time.time():
            return None
        digest = blake2b(text.encode(), digest_size=32, person=b"linkbeat ended").digest()
        return Session(found.token_id, found.ends_at, digest)


def check_same_origin(scope: Scope) -> None:
    """Raises Problem (403) if a page of another origin makes the request.

    Browsers send Sec-Fetch-Site over HTTPS and Origin over plain HTTP. A program that sends neither has no cookie that
    another page could exploit.
    """
    headers = dict(scope["headers"])
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if site is not None:
        is_ours = site == b"same-origin"
    elif origin is not None:
        is_ours = origin.partition(b"://")[2].lower() == headers.get(b"host", b"").lower()
    else:
        is_ours = True
    if not is_ours:
        raise Problem("forbidden", "requests from pages of another origin are not allowed")


def _secure(scope: Scope) -> str:
    """The Secure attribute if the page came over https; behind a proxy, the browser's Origin shows that."""
    origin = next((value for name, value in scope["headers"] if name == b"origin"), b"")
    return "; Secure" if scope.get("scheme") == "https" or origin.startswith(b"https://") else ""
