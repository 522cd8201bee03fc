"""``python -m edgeplane.swarm``."""

from edgeplane.swarm.cli import main

main()
