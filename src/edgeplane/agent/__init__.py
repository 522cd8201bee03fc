"""The daemon on an edge node: it journals a task, carries it out once, and tells what became of it.

Here belong the rules of execution, the journal, the executors and the door they are reached by. The
control plane's side does not: agent and control plane share the model, the wire and nothing else.
"""
