"""Become a program that dies with its parent: ``python leash.py PARENT PROGRAM [ARGUMENT...]``.

Run by its path, before anything else is imported: it asks Linux for SIGKILL at its parent's death,
then turns into the program. Elsewhere than on Linux it only turns into the program.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, program: list[str]) -> None:
    """Bind this process to its parent and become the program."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            sys.exit(1)
    os.execv(program[0], program)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
