"""Parameters for the names of rules, channels and mutes."""

import re
from typing import Annotated

from litestar.params import PathParameter, QueryParameter

from service.alerts.rules import NAME_PATTERN
from service.http.errors import Problem

RuleId = Annotated[str, PathParameter(description="Name of the rule.")]
ChannelId = Annotated[str, PathParameter(description="Name of the channel.")]
MuteId = Annotated[str, PathParameter(description="Name of the mute.")]
AfterName = Annotated[str, QueryParameter(description="`next` of the previous page.", max_length=400)]
_NAME = re.compile(NAME_PATTERN)


def check_name(name: str, path: str = "id") -> None:
    """Raises Problem (422) for an invalid name."""
    if not _NAME.match(name):
        raise Problem.invalid(path, "expected 1 to 100 letters, digits, '.', '_' and '-'; not '.' or '..'")
