"""Query parameters that many routes take."""

from typing import Annotated

from litestar.params import QueryParameter

MAX_NAMES = 500

Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="Entries a page.")]

Rows = Annotated[int, QueryParameter(ge=1, le=10_000, description="Rows a page.")]

# A name of 255 letters takes up to 1,360 characters of it.
After = Annotated[
    str | None,
    QueryParameter(description="`next` of the page before; all other parameters as they were.", max_length=4_000),
]

ServerFilter = Annotated[str | None, QueryParameter(description="Only this server.", max_length=255)]

ServerNames = Annotated[
    list[str] | None,
    QueryParameter(description=f"Only these servers; may be repeated, {MAX_NAMES} times."),
]

InterfaceFilter = Annotated[str | None, QueryParameter(description="Only this interface.", max_length=255)]

TimeZone = Annotated[
    str,
    QueryParameter(
        description="IANA name of the time zone whose midnights days and months begin at, such as Europe/Berlin.",
        max_length=64,
    ),
]
