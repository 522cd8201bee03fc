"""``MYSQL_DSN``: what is printed is read back, and nothing makes the reader misbehave."""

from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeplane.dsn import MysqlParts, Tls, read_dsn
from edgeplane.environ import SettingError

_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
_users = _text.map(lambda text: text.replace(":", ""))
_databases = _text.map(lambda text: text.replace("/", "").replace("?", "")).filter(bool)
_names = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)
_params = st.dictionaries(
    st.from_regex(r"[A-Za-z]{1,10}", fullmatch=True).filter(lambda name: name != "tls"), _text
)


@st.composite
def _parts(draw):
    socket = draw(st.none() | st.from_regex(r"/[a-z/ ().]{0,20}", fullmatch=True))
    host = draw(_names | st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str))
    params = tuple(draw(_params).items())
    tls = draw(st.sampled_from(Tls))
    return MysqlParts(
        user=draw(_users),
        password=draw(_text),
        host="localhost" if socket else host,
        port=3306 if socket else draw(st.integers(1, 65535)),
        unix_socket=socket,
        database=draw(_databases),
        params=(*params, ("tls", tls.value)),
        tls=tls,
        ignored=tuple(
            name for name, _ in params if name not in ("charset", "collation", "parseTime", "loc")
        ),
    )


def _write(parts):
    host = f"[{parts.host}]" if ":" in parts.host else parts.host
    net = f"unix({parts.unix_socket})" if parts.unix_socket else f"tcp({host}:{parts.port})"
    params = "&".join(f"{name}={quote_plus(value)}" for name, value in parts.params)
    return f"{parts.user}:{parts.password}@{net}/{parts.database}?{params}"


@given(_parts())
def test_what_is_written_is_read_back(parts):
    """Any user, password, host, socket, database and parameters survive the way there and back."""
    assert read_dsn(_write(parts)) == parts


@given(_text | st.text() | st.from_regex(r"[a-z:@()/?&=\[\]%0-9]{0,40}", fullmatch=True))
def test_arbitrary_text_is_read_or_refused_in_one_line(text):
    """Nothing but SettingError comes out, and its line names the setting and the form."""
    try:
        read_dsn(text)
    except SettingError as error:
        message = str(error)
        assert message.startswith("MYSQL_DSN: must look like user:password@tcp(host:3306)/")
        assert message.isprintable()


@given(
    _text, st.sampled_from(["tcp(h:1)/db", "tcp(h:0)/db", "unix(x)/db", "udp(h)/db", "tcp(h)/", ""])
)
def test_the_password_is_never_shown(rest, place):
    """Well formed or not, neither the error nor the repr repeats the password."""
    password = f"Pa55-WORD{rest}"
    try:
        shown = repr(read_dsn(f"root:{password}@{place}"))
    except SettingError as error:
        shown = f"{error} {error!r} {error.__cause__}"
    assert "Pa55-WORD" not in shown


@pytest.mark.parametrize(
    ("written", "user", "password", "host", "port", "socket"),
    [
        ("root:password@tcp(192.0.2.1:3306)/db", "root", "password", "192.0.2.1", 3306, None),
        ("root@tcp(db)/db", "root", "", "db", 3306, None),
        ("u:p@tcp([::1]:3307)/db", "u", "p", "::1", 3307, None),
        ("u:p@tcp([::1])/db", "u", "p", "::1", 3306, None),
        ("u:p@tcp(::1)/db", "u", "p", "::1", 3306, None),
        ("u:p@unix(/run/my.sock)/db", "u", "p", "localhost", 3306, "/run/my.sock"),
        ("u:a@b:c/d(e)@tcp(db:1)/db", "u", "a@b:c/d(e)", "db", 1, None),
        ("u:p@/db", "u", "p", "127.0.0.1", 3306, None),
        ("/db", "", "", "127.0.0.1", 3306, None),
    ],
)
def test_forms_the_go_driver_reads(written, user, password, host, port, socket):
    """Each form the Go driver accepts is read the same way."""
    parts = read_dsn(written)
    assert (parts.user, parts.password, parts.host) == (user, password, host)
    assert (parts.port, parts.unix_socket, parts.database) == (port, socket, "db")


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("mysql://root@db/x", "the address must be"),
        ("root:pw@db:3306/x", "another form"),
        ("root:pw@tcp(db:3306)", "another form"),
        ("root:pw@tcp(db:3306)/", "no database"),
        ("root:pw@tcp(db:0)/x", "not a host and a port"),
        ("root:pw@tcp(db:65536)/x", "not a host and a port"),
        ("root:pw@tcp(db:)/x", "not a host and a port"),
        ("root:pw@tcp([nonsense]:1)/x", "not a host and a port"),
        ("root:pw@tcp(d b:1)/x", "not a host and a port"),
        ("root:pw@unix(relative)/x", "absolute path"),
        ("root:pw@unix/x", "absolute path"),
        ("root:pw@udp(db:1)/x", "tcp(host:port) or unix(/path)"),
        ("root:pw@tcp(db)/x?tls=maybe", "tls must be"),
        ("root:p\udcffw@tcp(db)/x", "another form"),
        ("root:p\x00w@tcp(db)/x", "another form"),
    ],
)
def test_malformed_forms_say_why(written, why):
    """Each malformed form is refused with the part that is wrong."""
    with pytest.raises(SettingError) as caught:
        read_dsn(written)
    assert why in str(caught.value)


def test_parameters_without_meaning_are_named():
    """A parameter this program does not know is passed over, and its name is kept."""
    parts = read_dsn("u@tcp(h)/d?charset=utf8mb4&timeout=5s&parseTime=True&loc=Asia%2FShanghai")
    assert parts.ignored == ("timeout",)
    assert dict(parts.params)["loc"] == "Asia/Shanghai"
