"""URLs of services, which hold passwords: checked in one place, and never shown whole."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlsplit

#: What PyMySQL is told about TLS.
_MYSQL_OPTIONS = ("ssl_ca", "ssl_capath", "ssl_cert", "ssl_key", "ssl_cipher", "ssl_check_hostname")
#: Of these, those that are files or folders.
_MYSQL_FILES = ("ssl_ca", "ssl_capath", "ssl_cert", "ssl_key")


def check_database_url(url: str) -> None:
    """Raise ValueError unless this names a database of MySQL or MariaDB."""
    parts = _split(url, ("mysql", "mariadb"), "mysql://USER:PASSWORD@HOST:3306/NAME")
    name = parts.path.strip("/")
    if not name or "/" in name:
        raise ValueError("names no database: it ends in /NAME")
    unknown = [key for key, _ in parse_qsl(parts.query, keep_blank_values=True) if key not in _MYSQL_OPTIONS]
    if unknown:
        raise ValueError(f"has an option that is not one of {', '.join(_MYSQL_OPTIONS)}")
    for key, value in parse_qsl(parts.query):
        if key in _MYSQL_FILES and not Path(value).exists():
            raise ValueError(f"names a file for {key} that is not there: {value}")


def check_amqp_url(url: str) -> None:
    """Raise ValueError unless this names a RabbitMQ."""
    _split(url, ("amqp", "amqps"), "amqp://USER:PASSWORD@HOST:5672/VHOST")


def check_redis_url(url: str) -> None:
    """Raise ValueError unless this names a database of a Redis."""
    parts = _split(url, ("redis", "rediss"), "redis://:PASSWORD@HOST:6379/0")
    number = parts.path.strip("/")
    if number and not number.isdecimal():
        raise ValueError("ends in something that is not the number of a Redis database, like /0")


def check_storage_url(url: str) -> None:
    """Raise ValueError unless this may name a bucket or a WebDAV server; ``renderfarm.storage`` knows the rest."""
    example = "s3://KEY:SECRET@HOST/BUCKET or http://USER:PASSWORD@HOST:PORT/FOLDER"
    parts = _split(url, ("s3", "http", "https"), example)
    if parts.scheme == "s3" and has_password(url) and not parts.path.strip("/"):
        raise ValueError("names no bucket: it ends in /BUCKET or /BUCKET/PREFIX")


CHECKS: dict[str, Callable[[str], None]] = {
    "database_url": check_database_url,
    "amqp_url": check_amqp_url,
    "redis_url": check_redis_url,
    "storage_url": check_storage_url,
}
"""The check for each setting that is a service's URL."""


def has_password(url: str) -> bool:
    """Tell whether whoever reads this URL knows a password."""
    before_host, _, _ = url.rpartition("@")
    return ":" in before_host.partition("://")[2]


def _split(url: str, schemes: Collection[str], example: str) -> SplitResult:
    """Take a URL apart. No message shows any of it: a mistyped URL may have its password anywhere."""
    parts = urlsplit(url.strip())
    if parts.scheme not in schemes:
        raise ValueError(f"must begin with one of {', '.join(f'{scheme}://' for scheme in schemes)}, like {example}")
    try:
        # The getters are what parses.
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError(
            f"has no valid host or port: in a password, / @ : # ? and % are written as %2F …; like {example}"
        ) from None
    if parts.netloc.count("@") > 1:
        raise ValueError(f"has an @ too many: in a password it is written as %40; like {example}")
    if not host:
        raise ValueError(f"names no host: like {example}")
    return parts
