"""What is taken as a request, and the words of a refusal."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeplane.agent.requests import read_request
from edgeplane.jsonbody import MAX_DEPTH
from edgeplane.model.errors import Invalid


def _body(**changes):
    return json.dumps({"requestId": "r1", "type": "reload", **changes}).encode()


def _nested(depth):
    return b'{"a":' * depth + b"1" + b"}" * depth


def _with_payload(payload):
    return b'{"requestId":"r1","type":"reload","payload":' + payload + b"}"


def test_what_is_not_given_has_its_default():
    """A payload defaults to an empty object, an attempt to the first."""
    request = read_request(_body())
    assert (bytes(request.payload), request.attempt, request.timeout_seconds) == (b"{}", 1, None)


def test_a_payload_stays_the_bytes_it_came_as():
    """White space, key order, large numbers and odd spellings survive."""
    payload = b'{ "z":1180591620717411303424,"a":1.50, "e":1e999 ,"u":"\\u00e9"}'
    assert bytes(read_request(_with_payload(payload)).payload) == payload


@pytest.mark.parametrize(
    ("sent", "code", "message"),
    [
        (b"{}", 2001, "requestId: is required"),
        (b'{"requestId":"r1"}', 2001, "type: is required"),
        (_body(requestId=""), 2001, "requestId: is required"),
        (_body(type=""), 2001, "type: is required"),
        (_body(requestId=7), 2002, "requestId: must be a string, not int"),
        (_body(type=None), 2002, "type: must be a string, not null"),
        (_body(type="reboot"), 2002, "type: must be one of apply_config, reload, purge_cache"),
        (_body(requestId="a/b"), 2002, "requestId: 1 to 64 characters"),
        (_body(requestId="x" * 65), 2002, "requestId: 1 to 64 characters"),
        (_body(requestId="a\n"), 2002, "requestId: 1 to 64 characters"),
        (_body(payload=[]), 2002, "payload: must be an object"),
        (_body(payload=None), 2002, "payload: must be an object"),
        (_body(payload="{}"), 2002, "payload: must be an object"),
        (_body(extra=1), 2002, "extra: unknown field"),
        (_body(attempt=1.5), 2002, "attempt: must be a whole number, not float"),
        (_body(attempt=True), 2002, "attempt: must be a whole number, not bool"),
        (_body(attempt=0), 2003, "attempt: must be at least 1"),
        (_body(attempt=2**70), 2003, "attempt: must be at most 9007199254740992"),
        (_body()[:-1] + b', "attempt": 1' + b"0" * 5000 + b"}", 2003, "attempt: is out of range"),
        (_body(timeoutSeconds=3601), 2003, "timeoutSeconds: must be at most 3600"),
        (_body(epoch=-1), 2003, "epoch: must be at least 0"),
        (_body(nodeId=0), 2003, "nodeId: must be at least 1"),
        (_body(nodeId="7"), 2002, "nodeId: must be a whole number or null, not str"),
        (b"", 2002, "body: a JSON object is required"),
        (b"[]", 2002, "body: must be an object"),
        (b"nonsense", 2002, "body: not valid JSON"),
        (_body() + b"x", 2002, "body: not valid JSON"),
        (b"\xff" + _body(), 2002, "body: not valid JSON: not UTF-8 (byte 0)"),
        (_with_payload(b'{"a":"\xff"}'), 2002, "body: not valid JSON: not UTF-8"),
        (_with_payload(b'{"a":01}'), 2002, "body: not valid JSON"),
        (_with_payload(b'{"a":"\\x"}'), 2002, "body: not valid JSON"),
        (_with_payload(_nested(MAX_DEPTH + 1)), 2002, "payload: nested deeper than 64 levels"),
        (_with_payload(_nested(100_000)), 2002, "body: nested deeper than 64 levels"),
        (_with_payload(b'{"a":' + b"[" * 64 + b"]" * 64 + b"}"), 2002, "payload: nested deeper"),
    ],
)
def test_a_refusal_has_the_contracts_code_and_names_the_field(sent, code, message):
    """Missing, malformed and out of bounds are told apart."""
    with pytest.raises(Invalid) as refused:
        read_request(sent)
    assert refused.value.code == code
    assert refused.value.message.startswith(message)


@pytest.mark.parametrize(
    "payload",
    [
        _nested(MAX_DEPTH),
        b'{"a":[' + b",".join([b"{}"] * 200) + b"]}",
        b'{"a":"' + b"[{" * 200 + b'"}',
        b'{"a":"\\"' + b"[" * 200 + b'\\\\"}',
    ],
)
def test_breadth_and_brackets_in_texts_are_no_depth(payload):
    """Only what is nested counts."""
    assert bytes(read_request(_with_payload(payload)).payload) == payload


@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_whatever_comes_is_taken_or_refused_in_words(sent):
    """No input leads to any other error."""
    for form in (sent, _with_payload(sent)):
        with suppress(Invalid):
            read_request(form)
