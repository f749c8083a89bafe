"""Sessions of browsers: a signed cookie that names a token and holds nothing else of it.

A cookie is `<token id>.<microseconds since 1970 at which it ends>.<signature>`; of the fleet key, the id is empty. It
is good while the token is: Identity looks the token up with every request, so a session ends with its token. A session
that was signed out stands in the database (service/access/ended_sessions.py).
"""

import secrets
import time
from dataclasses import dataclass
from hashlib import blake2b
from hmac import compare_digest

from litestar.types import Scope

from service.http.errors import Problem

SESSION_SECONDS = 7 * 86_400
CODE_SECONDS = 900
# Where one browser signs in to several installations on one machine, the ports do not tell their cookies apart.
_COOKIE = "linkbeat_{}"
_CODE = "code-"
_LIFE = "; Path=/; HttpOnly; SameSite=Strict"


@dataclass(frozen=True, slots=True)
class Session:
    """What a cookie or a code says, once its signature has been checked.

    token_id  "" for the fleet key
    ends_at   seconds since 1970
    digest    by which the database knows that it was ended
    """

    token_id: str
    ends_at: float
    digest: bytes


class Sessions:
    """Makes and reads cookies, and the short-lived codes that `make run` prints.

    What is signed here, every process with the same secret key takes.
    """

    def __init__(self, secret: bytes, key: str) -> None:
        """`secret`: 64 bytes that cookies are signed with; `key`: the fleet key, with which its sessions end."""
        self._secret = blake2b(secret, person=b"linkbeat session").digest()
        self._key = key.encode()
        self.cookie = _COOKIE.format(blake2b(self._secret, digest_size=4).hexdigest())

    def start(self, token_id: str) -> str:
        """A new cookie's value."""
        return self._signed(token_id, SESSION_SECONDS)

    def of(self, scope: Scope) -> Session | None:
        """The session of the request's cookie; None without a cookie that is valid."""
        text = self._sent(scope)
        return None if text is None else self._read(text)

    def code(self) -> str:
        """Stands for the fleet key at sign-in, once and within CODE_SECONDS."""
        return self._signed(f"{_CODE}{secrets.token_hex(8)}", CODE_SECONDS)

    def of_code(self, text: str) -> Session | None:
        """What a code starts; None if it is not valid. The caller ends it with its first use."""
        found = self._read(text, is_code=True)
        return found and Session("", found.ends_at, found.digest)

    def _sent(self, scope: Scope) -> str | None:
        for name, value in scope["headers"]:
            if name == b"cookie":
                for one in value.decode("latin-1").split(";"):
                    of, _, text = one.strip().partition("=")
                    if of == self.cookie:
                        return text
        return None

    def set_cookie(self, scope: Scope, token_id: str) -> str:
        """The Set-Cookie header of a new session."""
        return f"{self.cookie}={self.start(token_id)}; Max-Age={SESSION_SECONDS}{_LIFE}{_secure(scope)}"

    def clear_cookie(self, scope: Scope) -> str:
        return f"{self.cookie}=; Max-Age=0{_LIFE}{_secure(scope)}"

    def _signed(self, who: str, seconds: float) -> str:
        ends = int((time.time() + seconds) * 1e6)  # no two sessions of a token are the same: each is signed out alone
        return f"{who}.{ends}.{self._signature(who, ends)}"

    def _signature(self, who: str, ends: int) -> str:
        of = f"{who}.{ends}".encode()
        # A session of the fleet key is no longer good for another one.
        if not who or who.startswith(_CODE):
            of += b"." + self._key
        return blake2b(of, key=self._secret, digest_size=32).hexdigest()

    def _read(self, text: str, *, is_code: bool = False) -> Session | None:
        who, _, rest = text.partition(".")
        ends, _, signature = rest.partition(".")
        # isdecimal: int() takes other digits and signs too, and any length of them.
        if not (ends.isascii() and ends.isdecimal() and len(ends) <= 18 and signature.isascii()):
            return None
        ends_at = int(ends) / 1e6
        if not compare_digest(signature, self._signature(who, int(ends))) or ends_at <= time.time():
            return None
        if who.startswith(_CODE) is not is_code:
            return None
        return Session(who, ends_at, blake2b(text.encode(), digest_size=32, person=b"linkbeat ended").digest())


def check_same_origin(scope: Scope) -> None:
    """Raises Problem (403) where a page of another origin makes the request.

    Browsers say by themselves where a request comes from; over plain HTTP, which Sec-Fetch-Site is not sent over, by
    Origin. A program that says neither carries no cookie that somebody else could make use of.
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
        raise Problem("forbidden", "a page of another origin may not do this")


def _secure(scope: Scope) -> str:
    """Over https alone, where the page came by it: what a proxy in front speaks, the browser's Origin tells."""
    origin = next((value for name, value in scope["headers"] if name == b"origin"), b"")
    return "; Secure" if scope.get("scheme") == "https" or origin.startswith(b"https://") else ""
