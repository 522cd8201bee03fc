"""``python -m edgeplane.agent`` is ``edgeplane-agent``."""

from edgeplane.agent.cli import main

main()
