"""A swarm's life: how it starts, what it tells while it runs, and how it ends."""

import asyncio
import signal
import socket
import sqlite3
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import uvloop

from edgeplane.observe import garbage
from edgeplane.observe.logs import say
from edgeplane.swarm import push
from edgeplane.swarm.controls import Control
from edgeplane.swarm.effects import Effects
from edgeplane.swarm.faults import Faults
from edgeplane.swarm.fleet import Fleet
from edgeplane.swarm.journal import DurableJournal, ForgetfulJournal
from edgeplane.swarm.journal_file import JournalFile
from edgeplane.swarm.records import Journal
from edgeplane.swarm.sync import SyncAgent
from edgeplane.swarm.syncing import Syncing
from edgeplane.swarm.tally import Tally


class StartError(Exception):
    """The swarm cannot start; the message is one line for the person who started it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to run."""

    agents: int
    listener: socket.socket | None  #: None: agents connect out
    controls: tuple[Control, ...]  #: to these
    connections: int  #: at the same time, at most
    token: str
    faults: Faults
    journal: Path | None  #: None: nothing is durable
    effects: Path | None  #: None: effects leave no line
    progress: bool


def run(plan: Plan) -> None:
    """Serve until SIGTERM or SIGINT, then print the summary.

    Raises:
        StartError: a file cannot be opened.

    """
    file = _journal_file(plan.journal)
    effects = _effects(plan.effects, file)
    garbage.keep_off()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(plan, file, effects))


def _journal_file(path: Path | None) -> JournalFile | None:
    try:
        return None if path is None else JournalFile(path)
    except sqlite3.Error as error:
        raise StartError(f"{path}: the journal cannot be opened: {error}") from error


def _effects(path: Path | None, file: JournalFile | None) -> Effects:
    try:
        return Effects(path, file.begun() if file else ())
    except OSError as error:
        raise StartError(f"{path}: cannot be opened: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise StartError(f"{path}: holds no effects: {error}") from error


def _journal(file: JournalFile | None) -> Journal:
    return DurableJournal(file) if file else ForgetfulJournal()


async def _serve(plan: Plan, file: JournalFile | None, effects: Effects) -> None:
    journal = _journal(file)
    tally = Tally()
    fleet = Fleet(plan.agents, journal, effects, plan.faults, tally)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    end, where = await _open(plan, fleet, tally)
    say(f"Swarm of {plan.agents} agents running {where}")
    while not stop.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1.0)
        rate = tally.look()
        if plan.progress:
            _show(rate, tally)
    end()
    journal.close()
    effects.close()
    say(msgspec.json.encode(tally.summary()).decode())


async def _open(plan: Plan, fleet: Fleet, tally: Tally) -> tuple[Callable[[], None], str]:
    """Let the agents begin; return what ends that, and where they are in words."""
    if plan.listener is not None:
        door = push.Door(fleet, plan.token, tally, plan.connections)
        end = await push.listen(door, plan.listener)
        return end, f"on port {plan.listener.getsockname()[1]}"
    most, seed = plan.connections, plan.faults.seed
    shared = Syncing(fleet, plan.controls, tally, most=most, seed=seed)
    shared.start(SyncAgent(shared, agent) for agent in fleet.everyone())
    called = ", ".join(f"{control.address} port {control.port}" for control in plan.controls)
    return shared.end, f"and connecting out to {called}"


def _show(rate: int, tally: Tally) -> None:
    counts = tally.counts
    sys.stderr.write(
        f"{rate}/s; {counts.requests} requests, {counts.effects} effects,"
        f" {counts.exchanges} exchanges, {counts.duplicates} duplicates,"
        f" {counts.connections} connections,"
        f" {counts.kills} kills; p50 {tally.percentile(50)} ms, p99 {tally.percentile(99)} ms\n"
    )
    sys.stderr.flush()
