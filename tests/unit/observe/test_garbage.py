"""The collector keeps off what is alive, and still finds circles."""

import subprocess
import sys

_PROGRAM = """
import gc, weakref
from edgeplane.observe import garbage

class Link:
    def __init__(self):
        self.itself = self

looks = []
garbage.keep_off()
gc.callbacks.append(lambda phase, info: looks.append(info["generation"]))
alive = [[] for _ in range(garbage.YOUNG - 1000)]
quiet = not looks
link = Link()
seen = weakref.ref(link)
del link
alive += [[] for _ in range(2000)]
print(gc.get_freeze_count() > 1000, quiet, seen() is None)
"""


def test_what_is_alive_is_left_alone_and_circles_are_found():
    """What was made before is never gone through; a full turn's objects call for no look."""
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["True", "True", "True"], ran.stderr
