"""Creating tokens, for the REST routes and the commands. `change`: service.database.audit.by."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from service.access.tokens import Hasher, Kind, Made
from service.database.audit import Fetch
from service.http.errors import Problem
from service.wire import ServerId

_CREATE = (
    "linkbeat.create_token(new_id => $1, new_kind => $2, of_server => $3, of_guid => $4, new_name => $5, "
    "new_hash => $6, new_key_id => $7, new_expires => $8, new_uses => $9)"
)
_REGISTER = (
    "linkbeat.register_server(of_server => $1, of_guid => $2, new_id => $3, new_name => $4, new_hash => $5, "
    "new_key_id => $6) AS is_new"
)
_ENROL = (
    "linkbeat.enrol_server(enrolment => $1, of_server => $2, of_guid => $3, new_id => $4, new_name => $5, "
    "new_hash => $6, new_key_id => $7) AS outcome"
)

Name = Annotated[
    str, Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]{0,255}\Z", description="A description, up to 255 characters.")
]
Guid = Annotated[
    str, Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]{1,255}\Z", description="The machine's GUID, as its agent sends it.")
]
Hostname = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]{1,255}\Z")]


class NewToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token to create.

    kind          server and fleet tokens report, a read token reads, an admin token has every permission
    server_id     the only server that a token of kind server reports for
    server_guid   the X-Server-GUID to accept; without it, the first one that an agent sends
    expires_days  without it, the token is valid until it is revoked
    """

    kind: Literal["server", "fleet", "read", "admin"]
    server_id: ServerId | None = None
    server_guid: Guid | None = None
    name: Name = ""
    expires_days: Annotated[float, Meta(gt=0, le=3650)] | None = None


class NewEnrolment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token that `uses` agents can each exchange for a token of their own, within `expires_minutes`."""

    uses: Annotated[int, Meta(ge=1, le=100_000)] = 1
    expires_minutes: Annotated[float, Meta(gt=0, le=1440)] = 60.0
    name: Name = ""


class NewServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A server to register. Lists show it from its first heartbeat on."""

    server_id: ServerId
    server_guid: Guid | None = None
    name: Name = ""


class Enrolling(msgspec.Struct, frozen=True):
    """The agent's description of itself when it asks for a token. Unknown fields are skipped, as in a heartbeat."""

    server_id: ServerId
    hostname: Hostname
    server_guid: Guid | None = None


class Created(msgspec.Struct, frozen=True):
    """A new token. It is shown only in this response: the database stores a hash of it."""

    id: str
    kind: Kind
    token: str
    server_id: str | None
    expires_at: datetime | None

    def __repr__(self) -> str:
        return f"<token {self.id}, {self.kind} {self.server_id or ''}>"


async def create(change: Fetch, hasher: Hasher, new: NewToken) -> Created:
    """Raises Problem (422) if `server_id` or `server_guid` does not fit the kind."""
    if (new.kind == "server") != (new.server_id is not None):
        raise Problem.invalid("server_id", "is required for a token of kind server, and not allowed for any other")
    if new.server_guid is not None and new.kind != "server":
        raise Problem.invalid("server_guid", "is only allowed for a token of kind server")
    expires = None if new.expires_days is None else datetime.now(UTC) + timedelta(days=new.expires_days)
    made = Made(new.kind, hasher)
    await change(
        _CREATE,
        made.token_id,
        new.kind,
        new.server_id,
        new.server_guid,
        new.name,
        made.hash,
        made.key_id,
        expires,
        None,
    )
    return Created(made.token_id, new.kind, made.text, new.server_id, expires)


async def create_enrolment(change: Fetch, hasher: Hasher, new: NewEnrolment) -> Created:
    expires = datetime.now(UTC) + timedelta(minutes=new.expires_minutes)
    made = Made("enrolment", hasher)
    arguments: tuple[Any, ...] = (None, None, new.name, made.hash, made.key_id, expires, new.uses)
    await change(_CREATE, made.token_id, "enrolment", *arguments)
    return Created(made.token_id, "enrolment", made.text, None, expires)


async def register(change: Fetch, hasher: Hasher, new: NewServer) -> Created:
    """Raises Problem (409) if the server exists or has a token."""
    made = Made("server", hasher)
    (row,) = await change(_REGISTER, new.server_id, new.server_guid, made.token_id, new.name, made.hash, made.key_id)
    if not row["is_new"]:
        raise Problem(
            "server_exists",
            f"server {new.server_id!r} already exists; POST /api/v1/tokens creates another token for it",
        )
    return Created(made.token_id, "server", made.text, new.server_id, None)


async def enrol(change: Fetch, hasher: Hasher, agent: Enrolling, enrolment: str | None) -> Created:
    """Creates a server's own token. `enrolment` is the id of the enrolment token; None: the caller is an administrator.

    Raises Problem: 403 if the enrolment token is used up, 409 if the server belongs to another machine.
    """
    made = Made("server", hasher)
    (row,) = await change(
        _ENROL, enrolment, agent.server_id, agent.server_guid, made.token_id, agent.hostname, made.hash, made.key_id
    )
    if row["outcome"] == "spent":
        raise Problem("forbidden", "the enrolment token is used up")
    if row["outcome"] == "exists":
        raise Problem(
            "server_exists",
            f"server {agent.server_id!r} already exists: if it is this machine, ask an administrator for a token; "
            "otherwise choose another id",
        )
    return Created(made.token_id, "server", made.text, agent.server_id, None)
