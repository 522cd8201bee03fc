"""What each role may do: one table."""

from dataclasses import dataclass
from enum import StrEnum

from edgeplane.model.errors import Forbidden
from edgeplane.model.users import Role


class Permission(StrEnum):
    """What a route asks for."""

    READ = "read"
    OPERATE = "operate"  #: tasks and nodes: create, change, retry, delete


GRANTS: dict[Role, frozenset[Permission]] = {
    Role.VIEWER: frozenset({Permission.READ}),
    Role.OPERATOR: frozenset({Permission.READ, Permission.OPERATE}),
    Role.ADMIN: frozenset(Permission),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling."""

    user_id: int
    username: str
    role: Role


def require(principal: Principal, permission: Permission) -> None:
    """Raise Forbidden unless the caller's role grants the permission."""
    if permission not in GRANTS[principal.role]:
        raise Forbidden(f"role {principal.role.value} may not {permission.value}")
