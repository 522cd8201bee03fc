"""Where the program starts: light, so that a Ctrl-C while the rest is imported ends it quietly."""

import importlib
import sys
from typing import NoReturn

INTERRUPTED = 130  #: as a shell counts it; ``exits.Exit`` says the same


def main() -> NoReturn:
    """Run the command line and end the process."""
    try:
        code = importlib.import_module("edgeplane.cli.root").run_process(sys.argv[1:])
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)
