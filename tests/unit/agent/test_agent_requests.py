"""What is taken as a request, and the words of a refusal."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeplane.agent.requests import read_batch, read_cancel, read_request
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
        (_body(generation=-1), 2003, "generation: must be at least 0"),
        (_body(generation=2**53 + 1), 2003, "generation: must be at most 9007199254740992"),
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


def _batch(*tasks):
    return b'{"tasks":[' + b",".join(tasks) + b"]}"


def test_a_batch_is_a_list_of_requests():
    """Each as it would be alone, its payload the bytes it came as."""
    payload = b'{ "z":1180591620717411303424 }'
    first, second = read_batch(_batch(_body(requestId="a", generation=3), _with_payload(payload)))
    assert (first.request_id, first.generation, bytes(first.payload)) == ("a", 3, b"{}")
    assert bytes(second.payload) == payload
    assert len(read_batch(_batch(*[_body()] * 100))) == 100


@pytest.mark.parametrize(
    ("sent", "code", "message"),
    [
        (b"{}", 2001, "tasks: is required"),
        (b'{"tasks":{}}', 2002, "tasks: must be a list, not object"),
        (_batch(), 2003, "tasks: must have a length of at least 1"),
        (_batch(*[_body()] * 101), 2003, "tasks: must have a length of at most 100"),
        (b'{"more":1}', 2002, "more: unknown field"),
        (_batch(_body(), b"1"), 2002, "tasks[1]: must be an object, not int"),
        (_batch(_body(), _body(), _body(), b'{"requestId":"a"}'), 2001, "tasks[3].type: is requ"),
        (_batch(_body(), b'{"type":"reload"}'), 2001, "tasks[1].requestId: is required"),
        (_batch(_body(requestId="")), 2001, "tasks[0].requestId: is required"),
        (_batch(_body(), _body(type="reboot")), 2002, "tasks[1].type: must be one of"),
        (_batch(_body(), _body(requestId="a/b")), 2002, "tasks[1].requestId: 1 to 64"),
        (_batch(_body(), _body(payload=[])), 2002, "tasks[1].payload: must be an object"),
        (_batch(_body(), _body(extra=1)), 2002, "tasks[1].extra: unknown field"),
        (_batch(_body(attempt=0)), 2003, "tasks[0].attempt: must be at least 1"),
        (_batch(_body(), _with_payload(_nested(65))), 2002, "tasks[1].payload: nested deeper"),
    ],
)
def test_one_malformed_task_refuses_the_batch_and_is_named(sent, code, message):
    """By its place among the others, and then as it would be alone."""
    with pytest.raises(Invalid) as refused:
        read_batch(sent)
    assert refused.value.code == code
    assert refused.value.message.startswith(message)


def test_a_cancel_names_a_request_and_whoever_asks():
    """Node, epoch and attempt are optional."""
    order = read_cancel(b'{"requestId":"r1","nodeId":7,"epoch":0,"attempt":2}')
    assert (order.request_id, order.node_id, order.epoch, order.attempt) == ("r1", 7, 0, 2)
    bare = read_cancel(b'{"requestId":"r1"}')
    assert (bare.node_id, bare.epoch, bare.attempt) == (None, None, None)


@pytest.mark.parametrize(
    ("sent", "code", "message"),
    [
        (b"{}", 2001, "requestId: is required"),
        (b'{"requestId":""}', 2001, "requestId: is required"),
        (b'{"requestId":"a b"}', 2002, "requestId: 1 to 64 characters"),
        (b'{"requestId":"a","type":"reload"}', 2002, "type: unknown field"),
        (b'{"requestId":"a","epoch":-1}', 2003, "epoch: must be at least 0"),
        (b'{"requestId":"a","nodeId":0}', 2003, "nodeId: must be at least 1"),
        (b'{"requestId":"a","attempt":0}', 2003, "attempt: must be at least 1"),
    ],
)
def test_a_malformed_cancel_is_refused_by_field(sent, code, message):
    """In the words of a request."""
    with pytest.raises(Invalid) as refused:
        read_cancel(sent)
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
    for form in (sent, _with_payload(sent), _batch(sent), _batch(_with_payload(sent))):
        for read in (read_request, read_batch, read_cancel):
            with suppress(Invalid):
                read(form)
