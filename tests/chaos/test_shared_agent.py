"""One machine that is several nodes' rows: each has its own epochs, none shuts the others out."""


def test_nodes_that_share_an_agent_do_not_refuse_each_other(stage):
    """Claimed in any order, every task is delivered once: no epoch is stale for another node."""
    agent = stage.agent()
    control = stage.control()
    nodes = stage.nodes(control, [agent], 3)
    stage.stream([control], stage.asks(nodes, 60)).wait()
    assert stage.finish() == []
    sent = [row.attempts for row in stage.tables.tasks() if row.status != "superseded"]
    assert set(sent) == {1}
    assert "stale epoch" not in control.output
