"""Settings from environment variables: one struct declares them, everything else is derived from it.

A field `interval_seconds` of a settings struct is the variable LINKBEAT_INTERVAL_SECONDS; its type, range, unit and
description stand in the field's `Annotated[..., msgspec.Meta(...)]`. `Meta.extra` may hold `unit` (a word),
`allowed` (what a value looks like, for the error message) and `secret` (never repeat the value).
"""

import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

PREFIX = "LINKBEAT_"
S = TypeVar("S", bound=msgspec.Struct)


class SettingsError(Exception):
    """A setting cannot be used; the message names the variable and says what is allowed."""


class SettingDescription(msgspec.Struct, frozen=True):
    """One setting, as documentation shows it. `default` is written as the variable would be; "" is none."""

    variable: str
    allowed: str
    unit: str | None
    default: str
    description: str
    secret: bool


def load(settings: type[S], environ: Mapping[str, str]) -> S:
    """The struct filled from `environ`. An empty variable counts as not set, as in an env file's `NAME=`.

    Raises SettingsError for the first value that is not allowed.
    """
    values: dict[str, Any] = {}
    for name, (annotation, _) in _fields(settings).items():
        text = environ.get(PREFIX + name.upper(), "").strip()
        if not text:
            continue
        is_list = typing.get_origin(_bare(annotation)) is tuple
        raw = [item.strip() for item in text.split(",") if item.strip()] if is_list else text
        try:
            values[name] = msgspec.convert(raw, annotation, strict=False)
        except msgspec.ValidationError:
            extra = _extra(annotation)
            shown = "the value" if extra.get("secret") else f'"{text}"'
            raise SettingsError(f"{PREFIX}{name.upper()}: {shown} is not {_allowed(annotation)}") from None
    return settings(**values)


def describe(settings: type[msgspec.Struct]) -> list[SettingDescription]:
    """Every setting of the struct, in the order of its fields."""
    return [
        SettingDescription(
            variable=PREFIX + name.upper(),
            allowed=_allowed(annotation),
            unit=_extra(annotation).get("unit"),
            default=_written(default),
            description=_meta(annotation, "description") or "",
            secret=bool(_extra(annotation).get("secret")),
        )
        for name, (annotation, default) in _fields(settings).items()
    ]


def _fields(settings: type[msgspec.Struct]) -> dict[str, tuple[Any, Any]]:
    hints = typing.get_type_hints(settings, include_extras=True)
    return {field.name: (hints[field.name], field.default) for field in msgspec.structs.fields(settings)}


def _bare(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation


def _meta(annotation: Any, attribute: str) -> Any:
    found = (getattr(meta, attribute, None) for meta in getattr(annotation, "__metadata__", ()))
    return next((value for value in found if value is not None), None)


def _extra(annotation: Any) -> dict[str, Any]:
    return _meta(annotation, "extra") or {}


def _allowed(annotation: Any) -> str:
    bare, extra = _bare(annotation), _extra(annotation)
    if "allowed" in extra:
        return str(extra["allowed"])
    if bare in (int, float):
        number = "a whole number" if bare is int else "a number"
        of_unit = f" of {extra['unit']}" if "unit" in extra else ""
        return f"{number}{of_unit} from {_written(_meta(annotation, 'ge'))} to {_written(_meta(annotation, 'le'))}"
    if bare is bool:
        return "true or false"
    if typing.get_origin(bare) is typing.Literal:
        return "one of " + ", ".join(typing.get_args(bare))
    return "a comma-separated list" if typing.get_origin(bare) is tuple else "text"


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
