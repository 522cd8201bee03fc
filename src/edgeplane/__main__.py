"""``python -m edgeplane``."""

from edgeplane.cli.main import main

main()
