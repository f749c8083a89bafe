"""Settings from environment variables and a TOML file: one struct declares them, everything else is derived from it.

A field `interval_seconds` of a settings struct is the variable LINKBEAT_INTERVAL_SECONDS, and the key
interval_seconds of a file; its type, range, unit and description stand in the field's
`Annotated[..., msgspec.Meta(...)]`. `Meta.extra` may hold `unit` (a word), `allowed` (what a value looks like, for the
error message), `secret` (never repeat the value), `environment_only` (no key of a file) and `fixed` (does not change
while the program runs).
"""

import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

PREFIX = "LINKBEAT_"
S = TypeVar("S", bound=msgspec.Struct)


class SettingsError(Exception):
    """A setting cannot be used; the message names the variable, or file and key, and says what is allowed."""


class Contradiction(SettingsError):
    """A value that is allowed by itself, but not beside the others."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{variable(name)}: {problem}")
        self.name, self.problem = name, problem


class ConfigFile(NamedTuple):
    """The keys and values of a TOML file, none of them checked yet."""

    path: Path
    values: Mapping[str, Any]


class SettingDescription(msgspec.Struct, frozen=True):
    """One setting, as documentation shows it. `default` is written as the variable would be; "" is none."""

    variable: str
    allowed: str
    unit: str | None
    default: str
    description: str
    secret: bool


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def load(settings: type[S], environ: Mapping[str, str], file: ConfigFile | None = None) -> S:
    """The struct filled from `environ`, and from `file` where that says nothing.

    An empty value counts as not set, as in an env file's `NAME=`. Raises SettingsError for the first value that is not
    allowed.
    """
    fields = _fields(settings)
    values = _checked(file, fields) if file else {}
    sources = {name: f"{file.path}: {name}" for name in values} if file else {}
    for name, (annotation, _) in fields.items():
        text = environ.get(variable(name), "").strip()
        if not text:
            continue
        sources[name] = variable(name)
        is_list = typing.get_origin(_bare(annotation)) is tuple
        raw = [item.strip() for item in text.split(",") if item.strip()] if is_list else text
        try:
            values[name] = msgspec.convert(raw, annotation, strict=False)
        except msgspec.ValidationError:
            shown = "the value" if _extra(annotation).get("secret") else f'"{text}"'
            raise SettingsError(f"{variable(name)}: {shown} is not {_allowed(annotation)}") from None
    try:
        return settings(**values)
    except Contradiction as error:
        raise SettingsError(f"{sources.get(error.name, variable(error.name))}: {error.problem}") from None


def read_file(path: Path) -> ConfigFile:
    """The keys and values of a TOML file.

    Raises FileNotFoundError if the file does not exist, and SettingsError if it cannot be read or is not TOML.
    """
    import tomllib  # noqa: PLC0415 - half a megabyte that an agent without a file can do without

    try:
        text = path.read_text(encoding="utf-8")
        # With a line break at the end, errors in the last line have a line number too.
        return ConfigFile(path, tomllib.loads(f"{text}\n"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not UTF-8 text") from None
    except RecursionError:
        raise SettingsError(f"{path}: is nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError is one, and so is a number of thousands of digits
        raise SettingsError(f"{path}{_place(text, str(error))}") from None


def fixed(settings: type[msgspec.Struct]) -> list[str]:
    """The settings that do not change while the program runs."""
    return [name for name, (annotation, _) in _fields(settings).items() if _extra(annotation).get("fixed")]


def describe(settings: type[msgspec.Struct]) -> list[SettingDescription]:
    """Every setting of the struct, in the order of its fields."""
    return [
        SettingDescription(
            variable=variable(name),
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


def _checked(file: ConfigFile, fields: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """The values of the file, converted to their types. Raises SettingsError for the first unknown key or invalid
    value."""
    known = {
        name: annotation for name, (annotation, _) in fields.items() if not _extra(annotation).get("environment_only")
    }
    values = {}
    for key, value in file.values.items():
        if key not in known:
            import difflib  # noqa: PLC0415 - for this one message

            close = difflib.get_close_matches(key, known, n=1)
            meant = f'did you mean "{close[0]}"?' if close else f"the settings are {', '.join(known)}"
            raise SettingsError(f'{file.path}: "{key}" is not a setting; {meant}')
        if value == "":
            continue
        annotation = known[key]
        try:
            values[key] = msgspec.convert(value, annotation)
        except (msgspec.ValidationError, OverflowError):
            problem = f"{_shown(value, annotation)} is not {_allowed(annotation, in_file=True)}"
            raise SettingsError(f"{file.path}: {key}: {problem}") from None
    return values


def _place(text: str, problem: str) -> str:
    """The message of a TOML parser with the line number and, if it can be determined, the key.

    Never the line itself: it may contain a secret.
    """
    found = re.search(r"\(at line (\d+), column \d+\)", problem)
    if found is None:
        return f": {problem}"
    key = re.match(r"\s*([A-Za-z0-9_-]+)\s*=", text.split("\n")[int(found[1]) - 1])
    what = "is set twice" if "overwrite a value" in problem else problem.replace(found[0], "").strip()
    return f", line {found[1]}: {key[1]}: {what}" if key else f", line {found[1]}: {what}"


def _shown(value: Any, annotation: Any) -> str:
    if _extra(annotation).get("secret"):
        return "the value"
    if not isinstance(value, str):
        # Long and structured values are not shown: the key is enough to find them.
        return f"{value}".lower() if isinstance(value, bool | int | float) and abs(value) < 1e300 else "the value"
    stands_bare = _bare(annotation) in (int, float, bool)
    return f'"{value}"' + (" in quotes" if stands_bare else "")


def _bare(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation


def _meta(annotation: Any, attribute: str) -> Any:
    found = (getattr(meta, attribute, None) for meta in getattr(annotation, "__metadata__", ()))
    return next((value for value in found if value is not None), None)


def _extra(annotation: Any) -> dict[str, Any]:
    return _meta(annotation, "extra") or {}


def _allowed(annotation: Any, *, in_file: bool = False) -> str:
    bare, extra = _bare(annotation), _extra(annotation)
    if in_file and typing.get_origin(bare) is tuple:
        return 'an array of strings such as ["eth0", "veth*"]'
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
