"""Write the pages of docs/ that are drawn from the code; ``--check`` only compares."""

import sys
from pathlib import Path

from edgeplane.model import errors, progress
from edgeplane.model.lifecycle import MOVES, Place

DOCS = Path(__file__).parent.parent / "docs"
_FINAL = (Place.SUCCESS, Place.FAILED)


def state_machine() -> str:
    """Draw the table of moves."""
    names = {place: place.name.lower() for place in Place}
    lines = [
        "# The state machine of a task",
        "",
        "Drawn from `MOVES` in `src/edgeplane/model/lifecycle.py` by `make docs`; a test fails when the",
        "two differ. `failed` has two meanings, told apart by `nextRetryAt`: set, the task is tried again",
        "by itself then; null, it is final until a person retries it.",
        "",
        "```mermaid",
        "stateDiagram-v2",
    ]
    lines += [f'    state "{place.value}" as {names[place]}' for place in Place]
    lines.append(f"    [*] --> {names[Place.PENDING]}: created")
    lines += [
        f"    {names[move.origin]} --> {names[move.target]}: {move.event.value}" for move in MOVES
    ]
    lines += [f"    {names[place]} --> [*]" for place in _FINAL]
    lines += ["```", "", "| from | when | to |", "|---|---|---|"]
    lines += [
        f"| {move.origin.value} | {move.event.value} | {move.target.value} |" for move in MOVES
    ]
    lines += [
        "",
        "Whether a failure can pass, and when the task is due again, is decided in",
        "`src/edgeplane/model/retry.py`; which task of a node may begin in `model/lanes.py`.",
        "",
        "# The state machine of an operation",
        "",
        "Drawn from `MOVES` in `src/edgeplane/model/progress.py`.",
        "",
        "| from | when | to |",
        "|---|---|---|",
    ]
    lines += [
        f"| {move.origin.value} | {move.event.value} | {move.target.value} |"
        for move in progress.MOVES
    ]
    lines.append("")
    return "\n".join(lines)


def error_table() -> str:
    """List every error a client can meet."""
    lines = [
        "# Errors",
        "",
        "Drawn from `src/edgeplane/model/errors.py` by `make docs`. Every error is the envelope",
        '`{"code": N, "message": "...", "data": null}`; the message names the field and what is wrong',
        "with it. Every answer carries `X-Request-Id`: quote it when you report a 5xx, the log has it.",
        "",
        "| code | HTTP | what it means | what to do |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {kind.code} | {_statuses(kind)} | {_first_line(kind)} | {_ADVICE[kind]} |"
        for kind in _in_order()
    ]
    return "\n".join([*lines, *_TASK_ERRORS, ""])


def _in_order() -> list[type[errors.DomainError]]:
    return sorted(_ADVICE, key=lambda kind: (kind.code, kind.status))


def _statuses(kind: type[errors.DomainError]) -> str:
    return "400, 405, 408, 413, 431" if kind is errors.NotAllowed else str(kind.status)


def _first_line(kind: type[errors.DomainError]) -> str:
    return (
        (kind.__doc__ or "").splitlines()[0].rstrip(".").replace("``retry_after``", "Retry-After")
    )


_ADVICE: dict[type[errors.DomainError], str] = {
    errors.Unauthenticated: "log in (`POST /auth/login`) and send `Authorization: Bearer <token>`",
    errors.BadCredentials: "check user and password; a token that was valid: log in again",
    errors.TokenExpired: "log in again",
    errors.Forbidden: "ask an admin for a role that may",
    errors.Missing: "send the field the message names",
    errors.Invalid: "mend the field the message names",
    errors.NotAllowed: "stay within the bounds the message names",
    errors.NotFound: "check the id or the path",
    errors.AlreadyExists: "choose another name or request id",
    errors.WrongState: "look at the object's state; the message says what stands in the way",
    errors.TooMany: "wait as many seconds as `Retry-After` says",
    errors.Internal: "report it with the request id",
    errors.DatabaseError: "look into the log under the request id",
    errors.DatabaseAway: "send it again; with a `requestId` of your own that is always safe",
}

_TASK_ERRORS = """
## What a task's `lastError` says

| it begins with | what happened | tried again by itself |
|---|---|---|
| `agent unreachable: connect to ...` | nothing arrived at the node; each of its addresses has its own words | yes, until the deadline; uses up no attempt |
| `no answer from ... timed out` | sent, not answered in time | yes: the same request is asked again, never guessed |
| `no answer from ...` and anything else | sent, and the connection ended, or brought what is no HTTP | yes, likewise |
| `sent to ... on a connection that ended; then ...` | sent on a kept connection that ended, and no new one came about; what follows says why | yes, likewise |
| `agent's answer is not understood` | something answered that is not our agent | yes |
| `sent in a batch, and its result is not in the agent's answer` | it was still under way when the others were answered, or the answer was cut short | yes, likewise |
| `agent answered for another request` | something between, or at that address, mixes answers up | yes |
| `agent returned status 408`, `429` or `5..` | the agent cannot take it now | yes |
| `agent returned status 503: timed out after ...` | given up over its `timeoutSeconds` before it took effect; nothing of it will appear | yes |
| `agent returned status 409: stale epoch` | the agent follows another owner of the node | yes |
| `agent returned status 409: generation: ...` | the agent has begun a later config of the node | no: this one is past |
| `cancelled before it took effect` | it was cancelled in time; nothing of it appears | no |
| `agent returned status 401` | the agent has another `AGENT_TOKEN` | no: mend the token, then retry |
| `agent returned status 3..` or another `4..` | the agent (or what answers in its place) refuses it | no |
| `agent returned error code N` | answered 200 with an error inside: no agent of ours does that | no |
| `the control plane is out of file descriptors` | nothing was sent | yes; raise its `LimitNOFILE=` |
| `delivery failed inside the control plane` | a fault of ours; the log of the control plane has it | yes |
| `the lease lapsed before the task was sent` | the control plane was held up for seconds (a pause, its database); nothing was sent | yes, at once; uses up no attempt |
| `whoever had sent it is gone: asked again` | a control plane died while the task was out. It is the message of that attempt in `task_attempts`, not a `lastError` | yes, at once; uses up no attempt |
| `operation cancelled`, `operation stopped` | taken back with its operation, by a person or because too many nodes failed; what it had met follows | no; `retry-failed` takes up what was stopped |
| `cancelled` | it was taken back; what its last attempt said follows | no |
| `deadline exceeded` | not done within `deadlineSeconds`; the last error follows | no |
| anything else | the agent carried it out and these are its own words | no |

"Yes" ends with `maxAttempts`: then the task is final whatever it says, but for what uses up no attempt. `maxAttempts: 1` turns
all of it off, except that a task which nobody can have sent any more is asked for again. Final is final until a person retries.
""".splitlines()

PAGES = {"state-machine.md": state_machine, "errors.md": error_table}


def main() -> int:
    """Write the pages, or say which are stale."""
    stale = [
        name
        for name, page in PAGES.items()
        if not (DOCS / name).exists() or (DOCS / name).read_text(encoding="utf-8") != page()
    ]
    if "--check" in sys.argv:
        for name in stale:
            print(f"docs/{name} is stale: run `make docs`", file=sys.stderr)
        return int(bool(stale))
    for name in stale:
        (DOCS / name).write_text(PAGES[name](), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
