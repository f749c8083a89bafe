"""os_info: an object with whatever an agent knows about its system; its size is checked before it is decoded."""

import re
from typing import Any

import msgspec

from service.http.errors import FieldError, field_error
from service.wire import MAX_NESTING, MAX_OS_INFO_BYTES

_Scalar = str | int | float | bool | None
_Value: Any = _Scalar
for _ in range(MAX_NESTING - 1):
    _Value = _Scalar | list[_Value] | dict[str, _Value]
# The type bounds the depth, so that no recursion in Python has to.
_decode = msgspec.json.Decoder(dict[str, _Value]).decode
_encode = msgspec.json.Encoder().encode
# Complete escapes before it are skipped: "\\\\u0000" is an escaped backslash, not a NUL.
_ESCAPED_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


def checked(raw: msgspec.Raw) -> tuple[FieldError | None, msgspec.Raw | None]:
    """The error in it, or the value to store: compact JSON without NUL, which jsonb cannot hold.

    Raises msgspec.DecodeError, UnicodeDecodeError or RecursionError if it is not JSON: the decoder of the whole body
    skips it without checking its strings.
    """
    text = bytes(raw)
    if text == b"null":
        return None, None
    if len(text) > MAX_OS_INFO_BYTES:
        return FieldError("os_info", f"has more than {MAX_OS_INFO_BYTES} bytes"), None
    try:
        known = _encode(_decode(text))
    except msgspec.ValidationError as raised:
        reason, _, place = str(raised).partition(" - at `$")
        if not place:
            found = reason.partition(", ")[2].replace("`", "")
            return FieldError("os_info", f"expected object | null, {found}"), None
        if reason.endswith(("got `array`", "got `object`")):
            return FieldError("os_info", f"is nested more than {MAX_NESTING} levels deep"), None
        return field_error(raised, "os_info"), None
    if b"\\u0000" in known:
        known = _ESCAPED_NUL.sub(rb"\1\\ufffd", known)
    return None, msgspec.Raw(known)
