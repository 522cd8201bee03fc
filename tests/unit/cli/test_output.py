"""What commands print: nothing that was written elsewhere can steer the terminal."""

import json
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeplane.cli import output


@given(st.text() | st.none() | st.booleans() | st.integers())
def test_a_value_is_one_printable_line(value):
    """No control, no surrogate and no change of direction is left in a value."""
    shown = output.visible(value)
    assert shown
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), ("", "-"), (True, "yes"), (0, "0"), ("a\nb", "a\\nb"), ("边缘", "边缘")],
)
def test_values_are_shown_plainly(value, shown):
    """Nothing is a dash, a flag is a word, a line break is visible."""
    assert output.visible(value) == shown


def test_columns_stay_aligned_with_wide_characters(capsys):
    """A Chinese name takes two columns a character, and the next column still lines up."""
    output.print_table(("A", "B"), [("边缘", "x"), ("abcd", "y"), ("é", "z")])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["A     B", "边缘  x", "abcd  y", "é     z"]


def test_a_long_cell_is_cut(capsys):
    """A cell is no wider than a line can take."""
    output.print_table(("A",), [("x" * 1000,)])
    assert capsys.readouterr().out.splitlines()[1] == "x" * 59 + "…"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_json_keeps_its_value_and_holds_no_controls(capsysbinary, value):
    """Printing changes no value, whatever its size, and sends no control to the terminal."""
    capsysbinary.readouterr()
    output.print_json(json.dumps(value, ensure_ascii=False).encode("utf-8"))
    text = capsysbinary.readouterr().out.decode()
    assert json.loads(text) == value
    assert not any(unicodedata.category(char) == "Cc" for char in text if char != "\n")
    assert "\u202e" not in text
