"""Requests counted by class of route and status: few words, whatever paths strangers make up."""

from prometheus_client import Counter, Histogram

from edgeplane.observe.metrics import Metrics

_PREFIX = "/api/v1/"
#: First parts of paths below the prefix that are routes of ours.
_ROUTES = frozenset({"agent-tasks", "auth", "me", "nodes", "openapi.json", "ping"})


def route_of(path: str) -> str:
    """Return the class of route a path belongs to."""
    if path == "/metrics":
        return "metrics"
    if not path.startswith(_PREFIX):
        return "other"
    first, _, rest = path[len(_PREFIX) :].partition("/")
    if first == "agent-tasks" and rest in {"create", "retry"}:
        return f"{first}/{rest}"
    return first if first in _ROUTES else "other"


class Tally:
    """Counts the requests of one door, and how long they took."""

    def __init__(self, metrics: Metrics) -> None:
        self._requests = metrics.counter("edgeplane_http_requests_total")
        self._seconds = metrics.histogram("edgeplane_http_request_seconds")
        self._known: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request; status 0: its client left before it was answered."""
        route = route_of(path)
        counted, took = self._known.get((route, status)) or self._meet(route, status)
        counted.inc()
        took.observe(seconds)

    def _meet(self, route: str, status: int) -> tuple[Counter, Histogram]:
        word = str(status) if status else "gone"
        found = (self._requests.labels(route, word), self._seconds.labels(route))
        self._known[route, status] = found
        return found
