"""The numbers of a JSON text, as they stand there."""

import re

_TOKEN = re.compile(
    rb"""\s*(?: (?P<string>"(?:[^"\\]|\\.)*") | (?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)
           | true | false | null | [\[\]{},:] )\s*""",
    re.VERBOSE | re.DOTALL,
)


def numbers(text: bytes) -> list[bytes]:
    """Every number of JSON or NDJSON. Fails where the text is neither."""
    found, at = [], 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        assert token, f"no JSON at {at}: {text[at : at + 40]!r}"
        if token["number"]:
            found.append(token["number"])
        at = token.end()
    return found


def exponents(text: bytes) -> list[bytes]:
    """Those that have one."""
    return [number for number in numbers(text) if b"e" in number.lower()]
