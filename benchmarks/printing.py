"""The report as a person reads it."""

import os
import platform
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks import cores, load, stage
from benchmarks.figures import spread
from benchmarks.rounds import Plan, Report

_METHOD = """\
Edgeplane from POST create to success committed, over HTTP, with real processes.
{machine}
{placed}
{rounds} round(s), each walking through everything once: medians, [least-most]; ratios are taken
round by round. One agent (simulated executor) answers for {nodes} nodes, at most {in_flight} tasks
under way. Nothing is switched off: SQLite synchronous=FULL, MariaDB
innodb_flush_log_at_trx_commit=1, the agent's journal and files fsynced.
bare client: the control plane's own HTTP client against the same agent; no store.
bare store:  the same creates through intake, claim and settle; no HTTP, delivered at once.
"""


def method(plan: Plan) -> str:
    """Say what was measured, how and on what."""
    placed = (
        "Control plane (and each floor) on one core; load, agent and database on the other."
        if cores.PINNED
        else "One core only: nothing could be kept apart."
    )
    return _METHOD.format(
        machine=f"{_processor()}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]},"
        f" Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        placed=placed,
        rounds=plan.rounds,
        nodes=stage.NODES,
        in_flight=stage.MAX_IN_FLIGHT,
    )


def report(found: Report) -> str:
    """Show what was measured on one store."""
    lines = [
        f"== {found.title} ==",
        "",
        _row("creates", "end to end", "bare client", "bare store", "by", "by", "by the"),
        _row("at once", "tasks/s", "tasks/s", "tasks/s", "client", "store", "slower"),
    ]
    for concurrency, at in found.throughput.items():
        rates = [spread(values, 0) for values in (at.end_to_end, at.client, at.store)]
        floors = (at.ratios(at.client), at.ratios(at.store))
        by_each = [_middle(values, 2) for values in floors]
        slower = spread(at.ratios(at.client, at.store), 2)
        lines.append(_row(concurrency, *rates, *by_each, slower))
    lines += ["", *_counters(found), "", *_idle(found), ""]
    lines += [f"  RSS, {name:<30} {mib:6.1f} MiB" for name, mib in found.rss_mib.items()]
    return "\n".join(lines) + "\n"


def starts(seconds: Sequence[float]) -> str:
    """Show how long an agent takes to start."""
    took = spread([1000 * second for second in seconds], 0)
    return f"agent, exec to its line `{stage.READY}`: {took} ms, n={len(seconds)}\n"


def _counters(found: Report) -> list[str]:
    lines = [
        _row("creates", "commits", "connections /", "create answered", "control plane"),
        _row("at once", "a task", "deliveries", "p50, p99", "CPU a task"),
    ]
    for concurrency, at in found.throughput.items():
        commits = spread(at.commits_per_task, 3)
        reused = f"{sum(at.connections)} / {sum(at.deliveries)}"
        answered = f"{_middle(at.create_p50_ms, 2)}, {_middle(at.create_p99_ms, 2)} ms"
        cpu = f"{_middle(at.cpu_us, 0)} us"
        lines.append(_row(concurrency, commits, reused, answered, cpu))
    return lines


def _idle(found: Report) -> list[str]:
    idle = found.idle
    poll = f"{1000 * load.IDLE_POLL_SECONDS:g} ms"
    trip, store = spread(idle.round_trip_p50, 2), spread(idle.store_pass_p50, 2)
    worth = spread(idle.round_trips(), 2)
    return [
        f"  One task on an idle system, POST sent to success committed (row read every {poll}):",
        f"    p50 {spread(idle.p50, 2)} ms, p99 {spread(idle.p99, 2)} ms",
        f"    create answered, p50 {spread(idle.answered_p50, 2)} ms",
        f"    floors, p50: round trip to the agent {trip} ms, store pass {store} ms",
        f"    latency in round trips' worth of the floor (the two together): {worth}",
    ]


def _row(*cells: object) -> str:
    widths = (9, 20, 20, 20, 8, 8, 18)
    padded = (f"{cell!s:<{width}}" for cell, width in zip(cells, widths, strict=False))
    return f"  {''.join(padded)}".rstrip()


def _middle(values: Sequence[float], digits: int) -> str:
    return f"{median(values):.{digits}f}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
