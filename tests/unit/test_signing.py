"""Signed texts: read only for the purpose, the secret key and the fleet key that they were signed for."""

import itertools
import time

import itsdangerous
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.signing import Signed, Signing
from tests.helpers.support import KEY

SECRET = bytes(range(64))
ENDS_AT = 1_800_000_000.25
PURPOSES = [
    ("session",),
    ("code",),
    ("picture", "nas", "network", None),
    ("picture", "nas", "network", "None"),
    ("picture", "nas", "network", "null"),
    ("picture", "nas", 'network", "eth0', None),
    ("picture", "nas", "network", "eth0"),
    ("picture", "nasnetwork", "eth0", None),
]


@pytest.mark.parametrize("token_id", ["", "k3v9x0d2m1qa"])
@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_text_is_read_for_its_purpose_and_for_no_other(token_id: str, purpose: tuple[str | None, ...]) -> None:
    signing = Signing(SECRET, KEY)

    text = signing.sign(token_id, ENDS_AT, *purpose)

    assert len(text) <= 73
    assert signing.read(text, *purpose) == Signed(token_id, ENDS_AT)
    assert [other for other in PURPOSES if signing.read(text, *other)] == [purpose]


def test_another_secret_reads_no_text_and_another_fleet_key_none_of_the_fleet_keys() -> None:
    signing = Signing(SECRET, KEY)
    of_token, of_key = signing.sign("k3v9x0d2m1qa", ENDS_AT, "session"), signing.sign("", ENDS_AT, "session")

    other_secret, other_key = Signing(bytes(64), KEY), Signing(SECRET, "another fleet key")

    assert [other_secret.read(text, "session") for text in (of_token, of_key)] == [None, None]
    assert other_key.read(of_token, "session") == Signed("k3v9x0d2m1qa", ENDS_AT)
    assert other_key.read(of_key, "session") is None
    assert signing.read(of_key.replace(".", f"{KEY}.", 1), "session") is None


def test_two_texts_of_one_token_differ_by_the_microsecond() -> None:
    signing = Signing(SECRET, KEY)

    texts = {signing.sign("", time.time() + number / 1e6, "session") for number in range(0, 1000, 2)}

    assert len(texts) == 500


def test_a_text_of_another_signer_with_the_same_secret_is_refused() -> None:
    """The library's own defaults sign with SHA-1, and with a key that no purpose is part of."""
    value = f"k3v9x0d2m1qa.{int(ENDS_AT * 1e6)}"
    signers = [
        itsdangerous.Signer(SECRET),
        itsdangerous.Signer(SECRET, "session"),
        itsdangerous.TimestampSigner(SECRET, "session"),
    ]

    assert [Signing(SECRET, KEY).read(signer.sign(value).decode(), "session") for signer in signers] == [None] * 3


@pytest.mark.parametrize("text", ["", ".", "..", "...", "\udcff", "a.\ud800.b", "é.1.é", "\0", "." * 128, "A" * 10**6])
def test_a_text_that_is_not_formed_is_refused(text: str) -> None:
    assert Signing(SECRET, KEY).read(text, "session") is None


@given(st.text(max_size=200))
def test_any_text_is_refused_and_none_raises(text: str) -> None:
    assert Signing(SECRET, KEY).read(text, "session") is None


def test_a_text_with_any_of_its_characters_changed_dropped_or_doubled_is_refused() -> None:
    signing = Signing(SECRET, KEY)
    text = signing.sign("k3v9x0d2m1qa", ENDS_AT, "session")
    changed = {
        changed
        for place, letter in itertools.product(range(len(text)), ["", "A", "a", "0", "-", "=", "!", ".", " ", "AA"])
        for changed in (text[:place] + letter + text[place + 1 :], text[:place] + letter + text[place:])
    } - {text}

    assert {one for one in changed if signing.read(one, "session")} == set()
