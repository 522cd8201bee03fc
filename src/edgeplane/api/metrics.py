"""``GET /metrics``, beside the API: for whoever watches over this control plane, and nobody else.

What it tells (how much is done for whom, versions, failed logins) is of use to an attacker. So it
is served to a bearer of ``METRICS_TOKEN``; where none is set, to this machine itself, and then not
through a proxy, whose clients all look local.
"""

import hmac
import ipaddress
from collections.abc import Mapping
from typing import Final

from edgeplane.model.errors import BadCredentials, Forbidden, Unauthenticated, WrongMethod

PATH: Final = "/metrics"
#: What a proxy adds: who comes through one is not who connects.
_FORWARDED = (b"forwarded", b"via", b"x-forwarded-for", b"x-real-ip")


def check_caller(
    token: str | None, method: str, peer: str | None, headers: Mapping[bytes, bytes]
) -> None:
    """Let a caller look, or raise.

    Args:
        token: what must be shown; None: this machine itself need show nothing.
        method: of the request.
        peer: the address it came from; None where that is not known.
        headers: of the request, names in lower case.

    Raises:
        NotAllowed: another method than GET.
        Unauthenticated, BadCredentials: a token is needed, and none, or another one, was shown.
        Forbidden: no token is set, and the caller is not known to be on this machine.

    """
    if method != "GET":
        raise WrongMethod(f"method {method[:20]} is not allowed here")
    if token is not None:
        _check_token(token, headers.get(b"authorization"))
    elif not _is_loopback(peer) or any(name in headers for name in _FORWARDED):
        raise Forbidden("metrics are for this machine only: set METRICS_TOKEN to let others look")


def _check_token(token: str, shown: bytes | None) -> None:
    if shown is None:
        raise Unauthenticated("missing authorization header")
    scheme, _, given = shown.partition(b" ")
    if scheme.lower() != b"bearer":
        raise Unauthenticated("invalid authorization header: expected Bearer and a token")
    if not hmac.compare_digest(given.strip(), token.encode()):
        raise BadCredentials("invalid token")


def _is_loopback(peer: str | None) -> bool:
    try:
        address = ipaddress.ip_address(peer or "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # how IPv4 looks on a socket for both
    return (mapped or address).is_loopback
