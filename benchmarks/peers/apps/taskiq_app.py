"""taskiq: Redis streams for a broker; the job stores its result in MariaDB itself."""

from typing import Annotated

import aiohttp
import asyncmy
import settings
from sqlalchemy import make_url
from taskiq import Context, TaskiqDepends, TaskiqEvents, TaskiqState
from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(url=settings.REDIS)
_TABLE = """
CREATE TABLE IF NOT EXISTS results (
  id BIGINT AUTO_INCREMENT PRIMARY KEY, task_id VARCHAR(64) NOT NULL UNIQUE,
  status VARCHAR(16) NOT NULL, message TEXT NOT NULL)
"""
_INSERT = "INSERT INTO results (task_id, status, message) VALUES (%s, 'success', %s)"


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def start(state: TaskiqState) -> None:
    """Open the connections a worker keeps."""
    place = make_url(f"mysql://{settings.DATABASE}")
    state.http = aiohttp.ClientSession(headers=settings.HEADERS)
    state.pool = await asyncmy.create_pool(
        host=place.host,
        port=place.port,
        user=place.username,
        password=place.password,
        db=place.database,
        autocommit=True,
        minsize=4,
        maxsize=16,
    )
    async with state.pool.acquire() as connection, connection.cursor() as cursor:
        await cursor.execute(_TABLE)


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def stop(state: TaskiqState) -> None:
    """Close them."""
    await state.http.close()
    state.pool.close()


@broker.task
async def work(number: int, context: Annotated[Context, TaskiqDepends()]) -> None:
    """Post a task to an agent, store what came of it."""
    message = "nothing"
    if settings.CALLS:
        url, body = settings.url_of(number), settings.body_of(number)
        async with context.state.http.post(url, json=body) as answer:
            message = settings.message_of(await answer.json())
    async with context.state.pool.acquire() as connection, connection.cursor() as cursor:
        await cursor.execute(_INSERT, (context.message.task_id, message))


async def put(number: int) -> str:
    """Enqueue one; return what its row will be found by."""
    return str((await work.kiq(number)).task_id)
