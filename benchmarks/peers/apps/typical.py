"""The usual way to build a control plane like ours: FastAPI, PyJWT, SQLAlchemy's ORM, httpx.

A create is one transaction; a dispatcher in the background takes the task up in a second one, posts
to the agent, and stores the result in a third. Nothing is leased, retried or rescued.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import httpx
import jwt
import settings
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field
from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, Text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

WORKERS = 64  #: tasks under way at once

engine = create_async_engine(f"mysql+asyncmy://{settings.DATABASE}?charset=utf8mb4", pool_size=20)
sessions = async_sessionmaker(engine, expire_on_commit=False)
waiting: asyncio.Queue[int] = asyncio.Queue()


class Base(DeclarativeBase):
    """The tables."""


class Node(Base):
    """An edge machine."""

    __tablename__ = "nodes"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    main_ip: Mapped[str] = mapped_column(String(45))


class Task(Base):
    """A piece of work for a node."""

    __tablename__ = "agent_tasks"
    __table_args__ = (Index("ix_status_id", "status", "id"),)
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("nodes.id"))
    node: Mapped[Node] = relationship(lazy="joined")
    type: Mapped[str] = mapped_column(String(32))
    payload: Mapped[dict[str, Any]] = mapped_column(JSON)
    status: Mapped[str] = mapped_column(String(16), default="pending")
    last_error: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(default=0)
    request_id: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))
    updated_at: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))


class CreateTask(BaseModel):
    """What a caller asks for."""

    node_id: int = Field(alias="nodeId")
    type: str
    payload: dict[str, Any] = {}


class TaskOut(BaseModel):
    """What a caller is shown."""

    id: int
    node_id: int = Field(serialization_alias="nodeId")
    type: str
    status: str
    request_id: str = Field(serialization_alias="requestId")


class Envelope(BaseModel):
    """Every answer."""

    code: int = 0
    message: str = "success"
    data: TaskOut


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Make the tables, run the dispatcher."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with sessions.begin() as session:
        for number in range(1, settings.AGENTS + 1):
            await session.merge(Node(id=number, main_ip=f"127.1.0.{number}"))
    async with httpx.AsyncClient(headers=settings.HEADERS, timeout=30) as client:
        workers = [asyncio.create_task(dispatch(client)) for _ in range(WORKERS)]
        yield
        for worker in workers:
            worker.cancel()


app = FastAPI(lifespan=lifespan)


async def user(
    shown: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())],
) -> dict[str, Any]:
    """Return who is calling."""
    try:
        return jwt.decode(shown.credentials, settings.SECRET, algorithms=["HS256"])
    except jwt.PyJWTError as error:
        raise HTTPException(401) from error


async def session() -> AsyncIterator[AsyncSession]:
    """Open a session for a request."""
    async with sessions() as opened:
        yield opened


@app.post("/api/v1/agent-tasks/create")
async def create(
    asked: CreateTask,
    _user: Annotated[dict[str, Any], Depends(user)],
    database: Annotated[AsyncSession, Depends(session)],
) -> Envelope:
    """Store a task and let it be dispatched."""
    task = Task(
        node_id=asked.node_id,
        type=asked.type,
        payload=asked.payload,
        request_id=str(uuid.uuid4()),
    )
    database.add(task)
    await database.commit()
    waiting.put_nowait(task.id)
    return Envelope(data=TaskOut.model_validate(task, from_attributes=True))


async def dispatch(client: httpx.AsyncClient) -> None:
    """Deliver tasks, one after the other."""
    while True:
        await deliver(client, await waiting.get())


async def deliver(client: httpx.AsyncClient, task_id: int) -> None:
    """Take a task up, post it, store what came of it."""
    async with sessions.begin() as database:
        task = await database.get_one(Task, task_id)
        task.status, task.attempts = "running", task.attempts + 1
    url = f"http://{task.node.main_ip}:{settings.AGENT_PORT}/agent/v1/tasks/execute"
    body = {"requestId": task.request_id, "type": task.type, "payload": task.payload}
    error = None
    try:
        settings.message_of((await client.post(url, json=body)).json())
    except (httpx.HTTPError, RuntimeError) as failed:
        error = str(failed)
    async with sessions.begin() as database:
        task = await database.get_one(Task, task_id)
        task.status, task.last_error = "failed" if error else "success", error
        task.updated_at = datetime.now(UTC)
