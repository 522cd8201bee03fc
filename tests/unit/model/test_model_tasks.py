"""What may be asked for, at every bound."""

import pytest

from edgeplane.model.errors import Invalid, Missing, NotAllowed
from edgeplane.model.tasks import (
    Lane,
    TaskKind,
    check_kind,
    check_payload,
    check_request_id,
    lane_of,
)


@pytest.mark.parametrize("value", ["a", "A-Z.a_z-0", "x" * 64, "..", "-"])
def test_a_well_formed_request_id_is_taken_as_it_is(value):
    """1 to 64 characters of letters, digits, dot, underscore and dash."""
    assert check_request_id(value) == value


@pytest.mark.parametrize("value", ["", "x" * 65, "a b", "a/b", "é", "a\n", "a\x00", "٣"])
def test_any_other_request_id_is_refused(value):
    """The message names the field."""
    with pytest.raises(Invalid, match="^requestId: 1 to 64 characters"):
        check_request_id(value)


@pytest.mark.parametrize("kind", TaskKind)
def test_a_known_kind_is_taken(kind):
    """Each kind is named by its value."""
    assert check_kind(kind.value) is kind


@pytest.mark.parametrize("value", ["", "Reload", "restart", "reload "])
def test_an_unknown_kind_is_refused(value):
    """The message lists what is known."""
    with pytest.raises(Invalid, match="^type: must be one of apply_config, reload, purge_cache$"):
        check_kind(value)


def test_purges_have_a_lane_of_their_own():
    """Only a purge overtakes."""
    assert {kind: lane_of(kind) for kind in TaskKind} == {
        TaskKind.APPLY_CONFIG: Lane.CONFIG,
        TaskKind.RELOAD: Lane.CONFIG,
        TaskKind.PURGE_CACHE: Lane.PURGE,
    }


@pytest.mark.parametrize("kind", [TaskKind.RELOAD, TaskKind.APPLY_CONFIG])
def test_any_object_is_a_config_payload(kind):
    """An empty one too."""
    check_payload(kind, {})
    check_payload(kind, {"urls": 1})


@pytest.mark.parametrize("kind", TaskKind)
@pytest.mark.parametrize("payload", [None, [], "{}", 1, True])
def test_a_payload_that_is_no_object_is_refused(kind, payload):
    """Whatever the kind."""
    with pytest.raises(Invalid, match="^payload: must be an object$"):
        check_payload(kind, payload)


def test_a_purge_names_what_to_purge():
    """At least one url, each a text that is not blank."""
    check_payload(TaskKind.PURGE_CACHE, {"urls": ["/"]})
    check_payload(TaskKind.PURGE_CACHE, {"urls": ["/a", "/b"], "more": 1})


@pytest.mark.parametrize(
    ("payload", "error", "words"),
    [
        ({}, Missing, "payload.urls: at least one entry is required"),
        ({"urls": []}, NotAllowed, "payload.urls: at least one entry is required"),
        ({"urls": "/a"}, Invalid, "payload.urls: must be a list of strings"),
        ({"urls": None}, Invalid, "payload.urls: must be a list of strings"),
        ({"urls": ["/a", 1]}, Invalid, "payload.urls[1]: must be a string"),
        ({"urls": ["/a", " \t"]}, NotAllowed, "payload.urls[1]: must not be empty"),
    ],
)
def test_a_purge_of_nothing_is_refused(payload, error, words):
    """The message names the entry and what is wrong with it."""
    with pytest.raises(error) as raised:
        check_payload(TaskKind.PURGE_CACHE, payload)
    assert type(raised.value) is error
    assert raised.value.message == words
