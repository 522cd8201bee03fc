"""The agent's own refusals, where the contract's errors need a status or a word more."""

from edgeplane.model.errors import AlreadyExists, DomainError, Internal, TooMany, WrongState
from edgeplane.wire import BatchRefusal, RefusalData


class Unavailable(Internal):
    """It may pass by itself."""

    status = 503


class Outdated(WrongState):
    """A later generation of the node's config has begun; ``data`` says which.

    A stale epoch has the same code and status, and means something else: there somebody asks who no
    longer may, and the same task may come again from whoever may; here the task itself is past, for
    ever. The words are for people; what tells the two apart on the wire is ``data``, which is null
    in every other error. An older control plane that does not read it takes this for a stale epoch
    and asks again until the task's deadline: late, but never wrong.
    """

    def __init__(self, generation: int, begun: int, node_id: int) -> None:
        super().__init__(outdated(generation, begun, node_id))
        self.data = RefusalData(begun_generation=begun)


def outdated(generation: int, begun: int, node_id: int) -> str:
    """Say why a config is not applied any more."""
    return (
        f"generation: {generation} is older than {begun},"
        f" which this agent has begun for node {node_id}"
    )


def different(request_id: str) -> AlreadyExists:
    """Refuse an id that belongs to something else."""
    return AlreadyExists(f"requestId: {request_id} was used for another type or payload")


def stopping() -> Internal:
    """Refuse what comes too late for this process."""
    return Internal("the agent is stopping; ask again with the same requestId")


def refusal(request_id: str, error: DomainError) -> BatchRefusal:
    """Return an error as one result among others."""
    return BatchRefusal(
        request_id,
        error.status,
        error.code,
        error.message,
        retry_after=error.retry_after if isinstance(error, TooMany) else None,
        data=error.data if isinstance(error, Outdated) else None,
    )
