"""Edgeplane beside what else does such work: ``python -m benchmarks.peers``, see ../README.md.

What orchestrates and measures belongs here. ``work`` holds the peers themselves: each file runs in
a process and an environment of its own, and knows nothing of Edgeplane but an agent's address.
"""
