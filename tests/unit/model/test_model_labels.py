"""Labels: what one may look like."""

import pytest

from edgeplane.model.errors import Invalid, NotAllowed
from edgeplane.model.labels import check_labels, read_label, write_labels


def test_labels_come_back_in_the_order_of_their_keys():
    """Keys and values at the edges of what is allowed pass; an empty value is one."""
    given = {"z" * 63: "9" * 63, "topology.kubernetes.io/zone_a-b": "", "A": "a._-"}
    assert list(check_labels(given)) == sorted(given)
    assert check_labels(given) == given
    assert write_labels({"a": "1", "b": ""}) == "a=1, b="


@pytest.mark.parametrize("name", ["", "a" * 64, "a b", "ü", "a=b", "a\n"])
def test_a_bad_key_is_named(name):
    """Visibly, whatever it holds."""
    with pytest.raises(Invalid, match="^labels: key .*1 to 63 characters"):
        check_labels({name: "v"})


@pytest.mark.parametrize("value", ["v" * 64, "a/b", "a b", "a\n"])
def test_a_bad_value_is_named_by_its_key(value):
    """A slash is for keys."""
    with pytest.raises(Invalid, match="^labels.k: 0 to 63 characters"):
        check_labels({"k": value})


def test_a_node_carries_at_most_32():
    """One more is refused."""
    assert len(check_labels({f"k{n}": "" for n in range(32)})) == 32
    with pytest.raises(NotAllowed, match="^labels: at most 32 entries$"):
        check_labels({f"k{n}": "" for n in range(33)})


def test_a_label_is_read_from_one_text():
    """The first equals sign divides it."""
    assert read_label("a/b=c") == ("a/b", "c")
    assert read_label("a=") == ("a", "")
    for wrong in ("a", "", "=b", "a=b=c"):
        with pytest.raises(Invalid, match="^label"):
            read_label(wrong)
