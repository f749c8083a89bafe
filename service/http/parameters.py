"""Query parameters that many routes share."""

from typing import Annotated

from litestar.params import QueryParameter

MAX_NAMES = 500

Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="Maximum number of entries per page.")]

Rows = Annotated[int, QueryParameter(ge=1, le=10_000, description="Maximum number of rows per page.")]

# A name of 255 letters takes up to 1,360 characters of a cursor.
After = Annotated[
    str | None,
    QueryParameter(description="`next` of the previous page; all other parameters must be the same.", max_length=4_000),
]

ServerFilter = Annotated[str | None, QueryParameter(description="Only this server.", max_length=255)]

ServerNames = Annotated[
    list[str] | None,
    QueryParameter(description=f"Only these servers; may be repeated up to {MAX_NAMES} times."),
]

InterfaceFilter = Annotated[
    str | None,
    QueryParameter(
        description="Only this interface: its series, its display name, or its name in the system.", max_length=255
    ),
]

MAX_TAGS_WANTED = 20

TagFilter = Annotated[
    list[str] | None,
    QueryParameter(
        description="Only servers with this tag, or with a tag of this key; may be repeated up to "
        f"{MAX_TAGS_WANTED} times: they must have all of them."
    ),
]

TimeZone = Annotated[
    str,
    QueryParameter(
        description="IANA name of the time zone in which days and months begin, such as Europe/Berlin.",
        max_length=64,
    ),
]
