"""Celery: its default pool, Redis for a broker, results in MariaDB by its own backend."""

import requests
import settings
from celery import Celery

app = Celery(
    "celery_app",
    broker=settings.REDIS,
    backend=f"db+mysql+pymysql://{settings.DATABASE}?charset=utf8mb4",
)
app.conf.worker_prefetch_multiplier = 64
_session = requests.Session()
_session.headers.update(settings.HEADERS)


@app.task
def work(number: int) -> str:
    """Post a task to an agent."""
    if not settings.CALLS:
        return "nothing"
    answer = _session.post(settings.url_of(number), json=settings.body_of(number), timeout=30)
    return settings.message_of(answer.json())


def put(number: int) -> str:
    """Enqueue one; return what its row will be found by."""
    return str(work.delay(number).id)
