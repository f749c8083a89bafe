"""service.http.numbers: JSON without exponents says the same."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http.numbers import plain, plain_json
from tests.helpers.tokens import exponents


class Row(msgspec.Struct):
    value: Any


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("1.792E+7"), "17920000"),
        (Decimal("1E+12"), "1000000000000"),
        (Decimal(2**64 - 1), "18446744073709551615"),
        (Decimal("0E+3"), "0"),
        (1e15, "1000000000000000.0"),
        (1e16, "10000000000000000"),
        (-1.5e-7, "-0.00000015"),
        (1e22, "10000000000000000000000"),
        (5e-324, "0." + "0" * 323 + "5"),
        (0.1, "0.1"),
        (msgspec.Raw(b"1e+16"), "10000000000000000"),
        (msgspec.Raw(b'[1E-7 , {"1e7" : 1e7}]'), '[0.0000001 , {"1e7" : 10000000}]'),
        ("1e7, 2E+8", '"1e7, 2E+8"'),
        ('":1e7,', '"\\":1e7,"'),
        ("\\", '"\\\\"'),
    ],
)
def test_numbers_have_no_exponent_and_strings_stay(value: Any, text: str) -> None:
    # The second number makes sure that the whole text is gone through.
    assert plain_json([Row(value), 1e30]) == f'[{{"value":{text}}},1{"0" * 30}]'.encode()
    assert plain_json(Row(value)) == f'{{"value":{text}}}'.encode()


def test_a_lone_number_is_plain() -> None:
    assert plain(b"1e7") == b"10000000"
    assert plain(b"[1e7]\n") == b"[10000000]\n"


values = st.recursive(
    st.one_of(
        st.floats(allow_nan=False, allow_infinity=False), st.integers(), st.text(), st.none(),
        st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30),
        st.sampled_from(["1e7", '"1e7,', "\\1E+7]", "e", "\n1e7\n"]),
    ),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip


@given(values)
def test_it_is_the_same_value_without_exponents(value: Any) -> None:
    before = msgspec.json.Encoder(decimal_format="number").encode(value)

    after = plain(before)

    assert json.loads(after, parse_float=Decimal, parse_int=Decimal) == json.loads(
        before, parse_float=Decimal, parse_int=Decimal
    )
    assert exponents(after) == []
