"""Make ``.env`` with a random password for each service, and ``renderfarm.toml`` with the URLs that match.

``python3 deploy/make_env.py [FOLDER]``; needs nothing but Python. What is there already is left as it is: a new
password would lock everybody out of the data that the old one made.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

PASSWORDS = (
    "MYSQL_ROOT_PASSWORD",
    "MYSQL_PASSWORD",
    "RABBITMQ_PASSWORD",
    "REDIS_PASSWORD",
    "MINIO_PASSWORD",
    "DUFS_PASSWORD",
)

_SETTINGS = """\
# The farm on the services of compose.yaml; made by `make env`. Use it by its name, RENDERFARM_CONFIG={path},
# or copy it as renderfarm.toml into the folder that the farm is started in. What is left out stays embedded.
database_url = "mysql://renderfarm:{MYSQL_PASSWORD}@127.0.0.1:3306/renderfarm"
amqp_url = "amqp://renderfarm:{RABBITMQ_PASSWORD}@127.0.0.1:5672/renderfarm"
redis_url = "redis://:{REDIS_PASSWORD}@127.0.0.1:6379/0"
storage_url = "s3://renderfarm:{MINIO_PASSWORD}@127.0.0.1:9000/renderfarm?secure=false"
# The other kind of store:
# storage_url = "http://renderfarm:{DUFS_PASSWORD}@127.0.0.1:5000/farm"
"""


def main(folder: Path) -> None:
    """Write what is missing in ``folder``, and say so."""
    env, settings = folder / ".env", folder / "renderfarm.toml"
    if env.exists():
        print(f"{env} is there already and stays as it is")
    else:
        # Letters and digits only: nothing to escape in URLs, shells and YAML.
        _write(env, "".join(f"{name}={secrets.token_hex(16)}\n" for name in PASSWORDS))
    if settings.exists():
        print(f"{settings} is there already and stays as it is")
    else:
        values = dict(line.split("=", 1) for line in env.read_text().splitlines() if "=" in line)
        _write(settings, _SETTINGS.format(path=settings, **values))
    print(f"next: docker compose --file {folder / 'compose.yaml'} up --detach")
    print(f"then: RENDERFARM_CONFIG={settings} renderfarm up")


def _write(path: Path, text: str) -> None:
    """Write a new file that only its owner may read, whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    os.link(partial, path)  # unlike a rename, this never replaces what came into being meanwhile
    partial.unlink()
    print(f"made {path}, for your eyes only")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
