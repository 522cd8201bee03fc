"""Addresses and names a node may have, at every bound."""

import pytest

from edgeplane.model.errors import Invalid, Missing, NotAllowed
from edgeplane.model.nodes import (
    MAX_SUB_IPS,
    Node,
    NodeStatus,
    SubIP,
    check_ip,
    check_name,
    check_sub_ips,
)
from kit.factories import NOW


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("255.255.255.254", "255.255.255.254"),
        ("::1", "::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ],
)
def test_an_address_is_kept_in_its_usual_spelling(written, kept):
    """So that the same address is never stored twice under two spellings."""
    assert check_ip(written, "mainIP") == kept


@pytest.mark.parametrize(
    "written",
    [
        *("", "localhost", "edge.example.com", "http://127.0.0.1", "127.0.0.1:9090", "127.0.0.1/8"),
        *("127.1", "127.0.0.01", "0x7f.0.0.1", "2130706433", " 127.0.0.1", "127.0.0.1\n", "[::1]"),
        *("127.0.0.1@x", "fe80::1%eth0", "::1%", "\uff11\uff12\uff17.0.0.1"),
    ],
)
def test_what_is_no_literal_is_refused(written):
    """Names, URLs, ports, zones and short forms never reach a URL."""
    with pytest.raises(Invalid, match="^mainIP: "):
        check_ip(written, "mainIP")


@pytest.mark.parametrize(
    "written",
    ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:0.0.0.0"],
)
def test_an_address_of_no_machine_is_refused(written):
    """Unspecified, multicast and broadcast addresses, also in IPv6 clothes."""
    with pytest.raises(NotAllowed, match="is not the address of a machine"):
        check_ip(written, "mainIP")


def test_a_name_loses_its_outer_blanks():
    """What is inside stays, in any language, up to 128 characters."""
    assert check_name("  edge 1 ") == "edge 1"
    assert check_name("节点" * 64) == "节点" * 64


@pytest.mark.parametrize(
    ("written", "error"),
    [
        ("", Missing),
        (" \t\n", Missing),
        ("x" * 129, NotAllowed),
        ("a\nb", Invalid),
        ("a\x00", Invalid),
        ("a\u202eb", Invalid),
        ("\ud800", Invalid),
    ],
)
def test_a_name_nobody_can_read_is_refused(written, error):
    """Empty, long, or with characters that do not print."""
    with pytest.raises(error) as raised:
        check_name(written)
    assert type(raised.value) is error


def test_sub_ips_keep_their_order_and_switch():
    """A disabled one stays disabled."""
    found = check_sub_ips([("::2", False), ("127.0.0.2", True)])
    assert found == (SubIP(ip="::2", enabled=False), SubIP(ip="127.0.0.2", enabled=True))


def test_the_same_sub_ip_twice_is_refused():
    """Also under two spellings; the message names the entry."""
    with pytest.raises(Invalid, match=r"^subIPs\[1\]\.ip: duplicate sub IP: ::1$"):
        check_sub_ips([("::1", True), ("0::1", True)])


def test_sub_ips_are_bounded():
    """64 are taken, 65 are not."""
    many = [(f"10.0.0.{number}", True) for number in range(MAX_SUB_IPS + 1)]
    assert len(check_sub_ips(many[:-1])) == MAX_SUB_IPS
    with pytest.raises(NotAllowed, match="^subIPs: at most 64 entries$"):
        check_sub_ips(many)


@pytest.mark.parametrize("status", NodeStatus)
@pytest.mark.parametrize("enabled", [True, False])
def test_a_node_is_paused_when_a_person_says_so(status, enabled):
    """Disabled or in maintenance; being offline is no pause."""
    node = Node(
        id=1,
        name="n",
        main_ip="127.0.0.1",
        agent_port=1,
        enabled=enabled,
        status=status,
        sub_ips=(),
        created_at=NOW,
        updated_at=NOW,
    )
    assert node.paused == (not enabled or status is NodeStatus.MAINTENANCE)
