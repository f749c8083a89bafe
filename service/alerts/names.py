"""Names of rules, channels and mutes, as paths and lists have them."""

import re
from typing import Annotated

from litestar.params import PathParameter, QueryParameter

from service.alerts.rules import NAME_PATTERN
from service.http.errors import Problem

RuleId = Annotated[str, PathParameter(description="The rule's name.")]
ChannelId = Annotated[str, PathParameter(description="The channel's name.")]
MuteId = Annotated[str, PathParameter(description="The mute's name.")]
AfterName = Annotated[str, QueryParameter(description="`next` of the page before.", max_length=400)]
_NAME = re.compile(NAME_PATTERN)


def check_name(name: str, path: str = "id") -> None:
    """Raises Problem (422) for a name that cannot be set."""
    if not _NAME.match(name):
        raise Problem.invalid(path, "expected 1 to 100 letters, digits, '.', '_' and '-'; not '.' or '..'")
