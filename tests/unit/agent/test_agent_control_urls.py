"""The control planes an agent is told of: what is taken, and what stops the start."""

import pytest

from edgeplane.agent.control_urls import MAX_URLS, ControlUrl, read_control_urls
from edgeplane.environ import SettingError


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("http://control", ControlUrl("control", 8081, tls=False)),
        ("https://Control.Example.com", ControlUrl("control.example.com", 8081, tls=True)),
        ("https://10.0.0.1:443/", ControlUrl("10.0.0.1", 443, tls=True)),
        ("http://[2001:db8::1]:9000", ControlUrl("2001:db8::1", 9000, tls=False)),
        ("HTTP://my_host:65535", ControlUrl("my_host", 65535, tls=False)),
    ],
)
def test_a_url_is_a_scheme_a_host_and_perhaps_a_port(written, url):
    """Printed, it is what was meant."""
    assert read_control_urls("NAME", written) == (url,)
    assert read_control_urls("NAME", str(url)) == (url,)


def test_several_have_commas_between_them():
    """In their order, blanks or not; nothing is none."""
    urls = read_control_urls("NAME", "http://a, https://b:1,http://[::1]")
    assert [str(url) for url in urls] == ["http://a:8081", "https://b:1", "http://[::1]:8081"]
    assert [url.authority for url in urls] == ["a:8081", "b:1", "[::1]:8081"]
    assert read_control_urls("NAME", "") == ()


@pytest.mark.parametrize(
    "written",
    [
        *("control:8081", "control", "://control", "http:control", "http:///", "//control"),
        *("ftp://control", "ws://control", "http://", "http://:8081", "http://control:"),
        *("http://control:0", "http://control:65536", "http://control:x", "http://control:-1"),
        *("http://control/agent", "http://control//", "http://control?a", "http://control?"),
        *("http://control#a", "http://control#", "http://control\\a", "http://con%74rol"),
        *("http://con trol", "http://con\ttrol", "http://c\u00f6ntrol", "http://-control"),
        *("http://[::1", "http://::1", "http://[1.2.3.4]", "http://[fe80::1%25eth0]"),
        *("http://me@control", "http://me:secret@control", "http://" + "a" * 300),
        *("http://a,", ",http://a", "http://a,,http://b", "http://a http://b", " "),
    ],
)
def test_anything_else_is_refused_by_name(written):
    """One line, without what may be a password."""
    with pytest.raises(SettingError, match="^NAME: must look like https://") as refused:
        read_control_urls("NAME", written)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_there_are_only_so_many():
    """A list that long is a mistake."""
    read_control_urls("NAME", ",".join(["http://a"] * MAX_URLS))
    with pytest.raises(SettingError, match="^NAME: at most 16 control planes, not 17"):
        read_control_urls("NAME", ",".join(["http://a"] * (MAX_URLS + 1)))
