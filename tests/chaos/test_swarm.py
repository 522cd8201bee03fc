"""A fleet of hundreds, whose agents die, cut connections and take their time."""

AGENTS, TASKS = 300, 1_500


def test_hundreds_of_faulty_agents_do_everything_once(stage):
    """With agents dying and answers lost, every task ends, and each effect is there once."""
    faults = ("--drop", "0.05", "--kill", "0.02", "--down", "0.5", "--latency", "5", "--seed", "1")
    swarm = stage.swarm(AGENTS, *faults)
    control = stage.control()
    nodes = stage.place(swarm, control)
    stage.stream([control], stage.asks(nodes, TASKS)).wait()
    assert stage.finish() == []
    counts = swarm.summary()
    assert counts["effects"] >= sum(row.status == "success" for row in stage.tables.tasks())
    assert min(counts["drops"], counts["kills"], counts["duplicates"], counts["recovered"]) > 0
