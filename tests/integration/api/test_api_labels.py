"""Labels of nodes over REST, on both engines."""

import pytest

from edgeplane.model.users import Role


@pytest.fixture
def api(either_house):
    """Call as an operator."""
    return either_house.callers[Role.OPERATOR]


async def _node(api, name, **labels):
    body = {"name": name, "mainIP": "192.0.2.1", "labels": labels}
    return await api.data("/nodes/create", body)


async def test_labels_are_kept_with_the_node(api):
    """In the order of their keys; an update that names them replaces all, another leaves them."""
    node = await _node(api, "a", region="eu", Tier="edge", empty="")
    assert list(node["labels"].items()) == [("Tier", "edge"), ("empty", ""), ("region", "eu")]
    assert (await api.data(f"/nodes/{node['id']}"))["labels"] == node["labels"]
    renamed = await api.data("/nodes/update", {"id": node["id"], "name": "b"})
    assert renamed["labels"] == node["labels"]
    changed = await api.data("/nodes/update", {"id": node["id"], "labels": {"region": "us"}})
    assert changed["labels"] == {"region": "us"}
    assert (await api.data("/nodes"))["list"][0]["labels"] == {"region": "us"}
    cleared = await api.data("/nodes/update", {"id": node["id"], "labels": {}})
    assert cleared["labels"] == {}
    assert await api.data("/nodes/delete", {"ids": [node["id"]]}) == {"deletedCount": 1}


async def test_a_list_shows_the_nodes_that_carry_all_labels(api):
    """Keys and values match byte for byte; other filters still hold; the total agrees."""
    await _node(api, "a", region="eu", tier="edge")
    await _node(api, "b", region="eu", tier="core")
    await _node(api, "c", region="EU", tier="edge")

    async def names(query):
        answer = await api.call("GET", "/nodes", query=query)
        assert answer.brief == (200, 0), answer
        assert answer.data["total"] == len(answer.data["list"])
        return [node["name"] for node in answer.data["list"]]

    assert await names("label=region=eu") == ["b", "a"]
    assert await names("label=region%3Deu&label=tier%3Dedge") == ["a"]
    assert await names("label=region=eu&name=b") == ["b"]
    assert await names("label=region=eu&label=region=us") == []
    assert await names("label=region=") == []


@pytest.mark.parametrize("label", ["region", "=eu", "a=b/c", "a%20b=c"])
async def test_a_label_that_none_can_be_is_refused(api, label):
    """A misspelt filter must not show all, nor nothing."""
    answer = await api.call("GET", "/nodes", query=f"label={label}")
    assert answer.brief == (400, 2002)
    assert answer.message.startswith("label")


async def test_only_labels_may_be_given_more_than_once(api):
    """The other filters take one value."""
    answer = await api.call("GET", "/nodes", query="name=a&name=b")
    assert answer.brief == (400, 2002)


@pytest.mark.parametrize("labels", [{"a b": "c"}, {"a": "b/c"}, {"a": 1}, ["a"], None, "a=b"])
async def test_a_label_that_none_can_carry_is_refused(api, labels):
    """And the field is named."""
    body = {"name": "n", "mainIP": "192.0.2.1", "labels": labels}
    answer = await api.post("/nodes/create", body)
    assert answer.brief == (400, 2002)
    assert answer.message.startswith("labels")
