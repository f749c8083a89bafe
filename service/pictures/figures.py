"""Figures as people read them, and how wide a text is at most."""

import unicodedata

_UNITS = ("b/s", "kb/s", "Mb/s", "Gb/s", "Tb/s", "Pb/s", "Eb/s", "Zb/s")
_NOT_KNOWN = "–"  # noqa: RUF001  # a dash, as tables have it
# Parts of the font's size, by the widest fonts that systems have for their own words (DejaVu Sans, Verdana).
_NARROW = frozenset(" .,:;'|!()[]/\\-ijlftrI\N{NO-BREAK SPACE}")
# More closely, what figures are made of.
_FIGURES = dict.fromkeys("0123456789bE", 0.64) | dict.fromkeys(". /\N{NO-BREAK SPACE}", 0.34)
_FIGURES |= {
    "%": 0.96,
    "°": 0.53,
    "C": 0.74,
    "-": 0.46,
    "s": 0.53,
    "k": 0.59,
    "M": 0.87,
    "G": 0.78,
    "T": 0.62,
    "P": 0.62,
    "Z": 0.7,
}
_WIDE = frozenset("mwMW@%&+=<>~")


def bits(bps: float | None) -> str:
    """A rate in three digits: 1.25 Mb/s is 1,250,000 bits a second."""
    if bps is None:
        return _NOT_KNOWN
    value, unit = bps, 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{_three(value) if unit else f'{value:.0f}'}\N{NO-BREAK SPACE}{_UNITS[unit]}"


def percent(value: float | None) -> str:
    if value is None:
        return _NOT_KNOWN
    text = f"{value:.1f}" if value < 9.95 else f"{value:.0f}" if value < 99_999 else f"{value:.0e}"
    return f"{text}\N{NO-BREAK SPACE}%"


def celsius(value: float | None) -> str:
    return _NOT_KNOWN if value is None else f"{value:.1f}\N{NO-BREAK SPACE}°C"


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def text_width(text: str, size: float) -> float:
    """How wide it is at most, in pixels, with a font of this size."""
    return size * sum(map(_of_letter, text))


def ellipsis(text: str, width: float, size: float) -> str:
    """As much of it as fits; "" where not even three letters do."""
    if text_width(text, size) <= width:
        return text
    room = width - size  # the ellipsis is as wide as the font is high
    for end, letter in enumerate(text):
        room -= size * _of_letter(letter)
        if room < 0:
            return text[:end].rstrip() + "…" if end >= 3 else ""
    return text


def _of_letter(letter: str) -> float:
    if letter in _FIGURES:
        return _FIGURES[letter]
    if letter in _NARROW:
        return 0.42
    if letter in _WIDE:
        return 1.0
    if letter.isascii():
        return 0.8 if letter.isupper() else 0.65
    if unicodedata.combining(letter):
        return 0.0
    return 1.1
