"""A control plane in this process, on a real store and without its engine: tasks stay put."""

from dataclasses import dataclass
from typing import Any

from argon2 import PasswordHasher
from sqlalchemy import update

from edgeplane.api.app import make_app
from edgeplane.api.parts import Parts
from edgeplane.auth.throttle import LoginThrottle
from edgeplane.auth.tokens import Tokens
from edgeplane.model.users import Role
from edgeplane.observe.metrics import Metrics
from edgeplane.services.feed import Feed
from edgeplane.services.intake import Intake
from edgeplane.services.users import Sessions
from edgeplane.store import nodes, tasks, users
from edgeplane.store.database import Database
from edgeplane.store.rows import agent_tasks, operations
from kit import factories
from kit.asgi import Caller

SECRET = "a-jwt-secret-for-the-tests-only-0123456789"
PASSWORD = "a-password-for-tests"
#: The least work argon2 can do: what is tested here is who gets in, not how long it takes.
CHEAP_HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)


@dataclass
class House:
    """A control plane without its engine."""

    database: Database
    tokens: Tokens
    parts: Parts
    app: Any
    told: list[Any]  #: node ids of each hint
    callers: dict[Role, Caller]

    def token(self, user):
        """Issue a token for a user."""
        return self.tokens.issue(user, CHEAP_HASH)[0]

    async def user(self, name, role=Role.OPERATOR):
        """Store a user who logs in with ``PASSWORD``."""
        return await self.database.write(lambda tx: users.add(tx, name, CHEAP_HASH, role))

    async def node(self, **given):
        """Store a node; return its id."""
        found = await self.database.write(lambda tx: factories.add_nodes(tx, 1, **given))
        return found[0]

    async def task(self, node_id, **given):
        """Store a pending task."""
        asked = factories.new_task(node_id, **given)
        return (await self.database.write(lambda tx: factories.add_tasks(tx, [asked])))[0]

    async def move(self, task, **changes):
        """Write a task's row as if the engine had."""
        statement = update(agent_tasks).where(agent_tasks.c.id == task.id).values(**changes)
        await self.database.write(lambda tx: tx.conn.execute(statement))

    async def fail(self, task, **changes):
        """Make a task one that has failed for good."""
        failed = {"status": "failed", "lane": None, "attempts": 1, "last_error": "no"}
        await self.move(task, **{**failed, **changes})

    async def count(self, operation_id, **counts):
        """Write an operation's counts as if the engine had."""
        statement = update(operations).where(operations.c.id == operation_id).values(**counts)
        await self.database.write(lambda tx: tx.conn.execute(statement))

    async def row(self, task_id):
        """Return a task as it is stored."""
        return await self.database.read(lambda tx: tasks.get(tx, task_id))

    async def node_row(self, node_id):
        """Return a node as it is stored."""
        return await self.database.read(lambda tx: nodes.get(tx, node_id))


async def build(url):
    """Join a house on a database with tables, and its three users."""
    database = Database(url)
    if database.dialect != "sqlite":
        await database.write(factories.clear)
    tokens = Tokens(SECRET, issuer="edgeplane", minutes=60)
    told: list[Any] = []
    metrics = Metrics()
    parts = Parts(
        database=database,
        sessions=Sessions(database, tokens, LoginThrottle(), metrics),
        intake=Intake(database, lambda ids: told.append(set(ids)), metrics),
        feed=Feed(database),
        metrics=metrics,
        metrics_token=None,
        tell=lambda ids: told.append(set(ids)),
        call=lambda: None,
    )
    house = House(database, tokens, parts, make_app(parts), told, {})
    for role in Role:
        user = await house.user(role.value, role)
        house.callers[role] = Caller(house.app, house.token(user))
    return house
