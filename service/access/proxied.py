"""Users that a proxy has signed in: it names them in a header, which is believed only from LINKBEAT_TRUSTED_PROXIES."""

import re
from typing import Literal

from litestar.types import Scope

from service.http.errors import Problem
from service.http.limits import ClientAddress
from service.settings import Settings

_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,4000}")
GROUP = "group:"  # before a group in LINKBEAT_TRUSTED_ADMINS
MAX_GROUPS = 1_000


class ProxiedUsers:
    """Reads the headers of a trusted proxy (oauth2-proxy, Authelia and others)."""

    def __init__(self, settings: Settings, addresses: ClientAddress) -> None:
        self._user = settings.trusted_user_header.lower().encode()
        self._groups = settings.trusted_groups_header.lower().encode()
        # Apart, because a user may have the name of a group.
        self._admin_groups = frozenset(
            one.removeprefix(GROUP) for one in settings.trusted_admins if one.startswith(GROUP)
        )
        self._admins = frozenset(one for one in settings.trusted_admins if not one.startswith(GROUP))
        self._addresses = addresses

    def of(self, scope: Scope) -> tuple[str, Literal["admin", "read"]] | None:
        """The user and what the user may do; None without a user, or if the request does not come from a trusted proxy.

        Raises Problem (403) for a header that is sent twice or is not a name: the proxy adds its own to the client's
        instead of replacing it.
        """
        client = scope.get("client")
        if not self._user or not client or not self._addresses.connected(client[0])[1]:
            return None
        user = self._one(scope, self._user)
        if not user:
            return None
        groups = self._one(scope, self._groups).split(",")[:MAX_GROUPS] if self._groups else []
        is_admin = user in self._admins or not self._admin_groups.isdisjoint(group.strip() for group in groups)
        return user, "admin" if is_admin else "read"

    def _one(self, scope: Scope, wanted: bytes) -> str:
        found = [value for name, value in scope["headers"] if name == wanted]
        if not found:
            return ""
        text = found[0].decode("utf-8", "replace").strip()
        if len(found) > 1 or (text and not _NAME.fullmatch(text)):
            name = wanted.decode()
            raise Problem("forbidden", f"the header {name} must be set once, by the proxy, without control characters")
        return text
