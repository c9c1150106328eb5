import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcnet_eda.errors import InvalidInputError
from kcnet_eda.units import format_si, parse_si, spice_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1p", 1e-12),
        ("10u", 10e-6),
        ("1meg", 1e6),
        ("1MEG", 1e6),
        ("3.3", 3.3),
        ("2e-12", 2e-12),
        ("1pF", 1e-12),
        ("-5m", -5e-3),
        ("1f", 1e-15),
        (".5k", 500.0),
        ("10 ns", 10e-9),
        ("1.5e3k", 1.5e6),
        (2, 2.0),
    ],
)
def test_parses_spice_numbers_to_the_nearest_double(text, value):
    assert parse_si(text) == value


@pytest.mark.parametrize("text", ["", "p", "1x", "1 2", "nan", "1e999", "1pp", "--1", float("inf")])
def test_refuses_what_is_no_number(text):
    with pytest.raises(InvalidInputError):
        parse_si(text)


@given(st.floats(min_value=1e-17, max_value=1e13))
def test_text_for_people_reads_back_within_its_digits(value):
    assert math.isclose(parse_si(format_si(value).replace("M", "meg")), value, rel_tol=5.1e-4)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_spice_text_keeps_nine_digits(value):
    assert math.isclose(float(spice_number(value)), value, rel_tol=5e-9, abs_tol=1e-313)


def test_rounding_carries_into_the_next_prefix():
    assert format_si(999.99e-12, "s", 3) == "1 ns"
