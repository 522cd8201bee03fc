"""``edgeplane node``: what is sent and what is shown."""

import json
import re

from unit.cli.fake_api import NODE, page


def test_add_sends_what_was_asked(logged_in, edgeplane):
    """Options reach the body under the API's names."""
    logged_in.answer("POST", "/api/v1/nodes/create", NODE)
    options = ("--port", "9191", "--disabled", "--sub-ip", "192.0.2.8", "--sub-ip", "::1")
    outcome = edgeplane("node", "add", "edge-1", "192.0.2.7", *options)
    assert outcome.code == 0
    assert logged_in.requests[-1].json == {
        "name": "edge-1",
        "mainIP": "192.0.2.7",
        "agentPort": 9191,
        "enabled": False,
        "subIPs": [{"ip": "192.0.2.8", "enabled": True}, {"ip": "::1", "enabled": True}],
    }
    assert edgeplane("node", "add", "n", "::1", "--label", "a=1", "--label", "b=").code == 0
    assert logged_in.requests[-1].json["labels"] == {"a": "1", "b": ""}
    assert edgeplane("node", "add", "n", "::1", "--label", "a").code == 2
    assert "192.0.2.8 (disabled)" in outcome.out


def test_update_sends_only_what_changes(logged_in, edgeplane):
    """What is not given is not sent; an empty list of sub-IPs is a change."""
    logged_in.answer("GET", "/api/v1/nodes", page(NODE))
    logged_in.answer("POST", "/api/v1/nodes/update", NODE)
    assert edgeplane("node", "update", "edge-1", "--disable", "--no-sub-ips").code == 0
    assert logged_in.requests[-1].json == {"id": 7, "enabled": False, "subIPs": []}
    assert edgeplane("node", "update", "7", "--status", "maintenance").code == 0
    assert logged_in.requests[-1].json == {"id": 7, "status": "maintenance"}


def test_set_keeps_the_labels_that_are_not_named(logged_in, edgeplane):
    """One is put on, one taken off; the others are sent as they are."""
    logged_in.answer("GET", "/api/v1/nodes/7", {**NODE, "labels": {"a": "1", "b": "2", "c": "3"}})
    logged_in.answer("POST", "/api/v1/nodes/update", {**NODE, "labels": {"a": "9"}})
    outcome = edgeplane("node", "set", "7", "--label", "a=9", "--unlabel", "b")
    assert outcome.code == 0
    assert logged_in.requests[-1].json == {"id": 7, "labels": {"a": "9", "c": "3"}}
    assert "a=9" in outcome.out


def test_delete_takes_ids_and_names(logged_in, edgeplane):
    """Several nodes are deleted with one request."""
    logged_in.answer("GET", "/api/v1/nodes", page(NODE))
    logged_in.answer("POST", "/api/v1/nodes/delete", {"deletedCount": 2})
    outcome = edgeplane("node", "delete", "3", "edge-1")
    assert (outcome.code, outcome.out) == (0, "deleted: 2\n")
    assert logged_in.requests[-1].json == {"ids": [3, 7]}
    assert json.loads(edgeplane("node", "delete", "3", "--json").out) == {"deletedCount": 2}


def test_deleting_what_is_not_there_is_not_found(logged_in, edgeplane):
    """Exit code 4, whether none or only some of the nodes were there."""
    logged_in.answer("POST", "/api/v1/nodes/delete", {"deletedCount": 0})
    logged_in.answer("POST", "/api/v1/nodes/delete", {"deletedCount": 1})
    outcome = edgeplane("node", "delete", "77")
    assert (outcome.code, outcome.out) == (4, "")
    assert outcome.err == "edgeplane: deleted: 0; not there: 1 of 1\n"
    outcome = edgeplane("node", "delete", "77", "3", "--json")
    assert outcome.code == 4
    assert json.loads(outcome.out)["code"] == 3001


def test_a_list_is_a_table(logged_in, edgeplane):
    """Filters become the query, nodes become rows, and a further page is named."""
    logged_in.answer("GET", "/api/v1/nodes", {**page(NODE), "total": 21})
    outcome = edgeplane("node", "list", "--name", "edge", "--enabled", "--page", "1")
    assert logged_in.requests[-1].path == "/api/v1/nodes?page=1&name=edge&enabled=true"
    assert outcome.out.splitlines()[1].split() == [
        *("7", "edge-1", "192.0.2.7", "9090", "offline", "yes", "-"),
        *("2026-01-23T09:59:00.000Z", "refused"),
    ]
    assert "--page 2" in outcome.err
    assert edgeplane("node", "list", "--label", "a=1", "--label", "b=2").code == 0
    assert logged_in.requests[-1].path == "/api/v1/nodes?label=a%3D1&label=b%3D2"


def test_show_is_the_data_with_json(logged_in, edgeplane):
    """Show prints fields for people and the API's data for programs."""
    logged_in.answer("GET", "/api/v1/nodes/7", NODE)
    shown = edgeplane("node", "show", "7").out
    assert "edge-1" in shown
    assert re.search("^last seen +2026-01-23T09:59:00.000Z$", shown, re.MULTILINE)
    assert re.search("^health error +refused$", shown, re.MULTILINE)
    assert json.loads(edgeplane("node", "show", "7", "--json").out) == NODE
