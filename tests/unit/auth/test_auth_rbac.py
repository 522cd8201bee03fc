"""Roles: who may do what."""

import pytest

from edgeplane.auth.rbac import GRANTS, Permission, Principal, require
from edgeplane.model.errors import Forbidden
from edgeplane.model.users import Role

MAY = {
    Role.VIEWER: {Permission.READ},
    Role.OPERATOR: {Permission.READ, Permission.OPERATE},
    Role.ADMIN: {Permission.READ, Permission.OPERATE},
}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("permission", Permission)
def test_each_role_may_what_it_may(role, permission):
    """A permission granted passes in silence; one that is not is Forbidden, naming both."""
    principal = Principal(1, "ann", role)
    if permission in MAY[role]:
        require(principal, permission)
    else:
        with pytest.raises(Forbidden, match=f"role {role.value} may not {permission.value}"):
            require(principal, permission)


def test_every_role_has_its_line():
    """A new role without grants would be an error at its first request."""
    assert set(GRANTS) == set(Role)


def test_each_role_may_what_the_one_below_may():
    """Roles are steps: viewer, operator, admin; the last may everything."""
    assert GRANTS[Role.VIEWER] < GRANTS[Role.OPERATOR] <= GRANTS[Role.ADMIN]
    assert GRANTS[Role.ADMIN] == set(Permission)
