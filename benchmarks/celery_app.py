"""The smallest Celery application, for a comparison."""

from __future__ import annotations

import os

from celery import Celery

app = Celery("benchmark", broker=os.environ["BENCH_AMQP_URL"], backend=os.environ["BENCH_REDIS_URL"])
app.conf.update(
    task_acks_late=True,
    task_default_queue=os.environ["BENCH_QUEUE"],
    worker_prefetch_multiplier=4,
    result_expires=60,
)


@app.task  # type: ignore[untyped-decorator]
def no_op() -> None:
    """Do nothing."""
