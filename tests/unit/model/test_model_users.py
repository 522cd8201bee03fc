"""Names and passwords people may have, at every bound."""

import pytest

from edgeplane.model.errors import Invalid, NotAllowed
from edgeplane.model.users import check_password, check_username


@pytest.mark.parametrize("value", ["a", "x" * 64, "a.b_c-d@e.f"])
def test_a_well_formed_user_name_is_taken(value):
    """Up to 64 characters."""
    assert check_username(value) == value


@pytest.mark.parametrize("value", ["", "x" * 65, "a b", "a\n", "ä", "a:b"])
def test_any_other_user_name_is_refused(value):
    """The message names the field."""
    with pytest.raises(Invalid, match="^username: 1 to 64 characters"):
        check_username(value)


@pytest.mark.parametrize("length", [8, 256])
def test_a_password_of_a_good_length_is_taken(length):
    """The bounds themselves are allowed."""
    assert check_password("p" * length) == "p" * length


@pytest.mark.parametrize("length", [0, 7, 257])
def test_a_short_or_endless_password_is_refused(length):
    """The message does not repeat it."""
    with pytest.raises(NotAllowed) as raised:
        check_password("p" * length)
    assert raised.value.message == "password: 8 to 256 characters are allowed"
