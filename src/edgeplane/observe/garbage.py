"""The garbage collector, kept off the hot path.

What the hot path makes is freed by its reference counts; the collector only finds circles. As
Python sets it, it went through everything alive (ten thousand connections, all modules) every two
thousand tasks: a third of an operation's CPU time, in pauses of 90 ms, to find nothing.
"""

import gc

#: So many more objects made than freed, until the young ones are looked through: more than a full
#: turn of the engine keeps alive. Circles wait for it, at some 5 MB of memory.
YOUNG = 20_000
#: So many looks at the young, until those that stayed are looked through; and of these, until all.
_MIDDLE, _ALL = 20, 10


def keep_off() -> None:
    """Look for garbage seldom, and never again among what is there now: call it once at start."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, _MIDDLE, _ALL)
