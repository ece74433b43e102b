"""The services of this machine that benchmarks work on, and what each run has of its own on them."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pika
import pymysql
from redis import Redis

from renderfarm.settings import prepare_ray_environment

MYSQL = "mysql://root@127.0.0.1:3306/"
AMQP = "amqp://guest:guest@127.0.0.1:5672/"
REDIS = "redis://127.0.0.1:6379/"


def service_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser for what every benchmark on services is told."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--mysql", default=MYSQL)
    parser.add_argument("--amqp", default=AMQP)
    parser.add_argument("--redis", default=REDIS)
    return parser


@contextmanager
def nothing_left_behind(amqp_url: str, redis_url: str, name: str) -> Iterator[None]:
    """Remove in the end what a farm of that name has left in RabbitMQ and Redis."""
    try:
        yield
    finally:
        with contextlib.closing(pika.BlockingConnection(pika.URLParameters(amqp_url))) as connection:
            for queue in (f"{name}.messages", f"{name}.dead"):
                connection.channel().queue_delete(queue)
        with Redis.from_url(redis_url) as redis:
            for key in redis.scan_iter(f"{name}:*", count=1000):
                redis.delete(key)


@contextmanager
def bench_database(server: str, name: str) -> Iterator[str]:
    """Make a database for this run, and remove it in the end; yield its URL."""
    with mysql(server) as connection:
        connection.cursor().execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    try:
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    finally:
        with mysql(server) as connection:
            connection.cursor().execute(f"DROP DATABASE `{name}`")


@contextmanager
def mysql(server: str, name: str | None = None) -> Iterator[pymysql.Connection[Any]]:
    """Open a plain connection that commits each statement."""
    url = urlsplit(server)
    connection = pymysql.connect(
        host=url.hostname or "127.0.0.1",
        port=url.port or 3306,
        user=url.username or "root",
        password=url.password or "",
        database=name,
        autocommit=True,
    )
    with contextlib.closing(connection):
        yield connection


@contextmanager
def local_ray(cpus: int) -> Iterator[None]:
    """Run a Ray of our own."""
    prepare_ray_environment()
    import ray

    from actors.handles import NAMESPACE

    folder = tempfile.mkdtemp(prefix="renderfarm-ray-")
    ray.init(
        address="local",
        namespace=NAMESPACE,
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80 * 2**20,
        _temp_dir=folder,
        _node_ip_address="127.0.0.1",
    )
    try:
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
