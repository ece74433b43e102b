"""The services of deploy/compose.yaml: no password that anybody could guess, and settings that fit."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from renderfarm.settings import Settings

DEPLOY = Path(__file__).parents[3] / "deploy"
TEXT = (DEPLOY / "compose.yaml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]


def make_env(folder: Path) -> str:
    command = [sys.executable, str(DEPLOY / "make_env.py"), str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_services_are_there() -> None:
    assert set(SERVICES) == {"mysql", "rabbitmq", "redis", "minio", "minio-bucket", "dufs"}


def test_it_does_not_start_without_passwords_and_has_none_itself() -> None:
    variables = re.findall(r"\$\{([A-Z_]+)([^}]*)\}", TEXT)
    passwords = {name for name, _ in variables if "PASSWORD" in name}
    assert len(passwords) == 6
    assert {rest for name, rest in variables if name in passwords} == {":?run make env"}
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASS|AUTH|MC_HOST", name):
                assert "${" in value


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned_and_ports_are_on_loopback(name: str) -> None:
    assert re.search(r":.*\d+\.\d+\.\d+|:RELEASE\.\d{4}-", SERVICES[name]["image"])
    assert all(port.startswith("${RENDERFARM_BIND:-127.0.0.1}:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"dufs", "minio-bucket"}))
def test_health_is_looked_after(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]


def test_make_env_makes_settings_that_match(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_env(tmp_path)
    passwords = dict(line.split("=") for line in (tmp_path / ".env").read_text().splitlines())
    assert set(passwords) == set(re.findall(r"\$\{([A-Z_]*PASSWORD)", TEXT))
    assert len(set(passwords.values())) == len(passwords)
    monkeypatch.setenv("RENDERFARM_CONFIG", str(tmp_path / "renderfarm.toml"))
    settings = Settings()
    for url, password in (
        (settings.database_url, "MYSQL_PASSWORD"),
        (settings.amqp_url, "RABBITMQ_PASSWORD"),
        (settings.redis_url, "REDIS_PASSWORD"),
        (settings.storage_url, "MINIO_PASSWORD"),
    ):
        assert passwords[password] in str(url)
    for name in (".env", "renderfarm.toml"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_make_env_keeps_what_is_there(tmp_path: Path) -> None:
    make_env(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in (".env", "renderfarm.toml")}
    assert make_env(tmp_path).count("stays as it is") == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_lost_settings_are_made_again_from_the_passwords(tmp_path: Path) -> None:
    make_env(tmp_path)
    before = tomllib.loads((tmp_path / "renderfarm.toml").read_text())
    (tmp_path / "renderfarm.toml").unlink()
    make_env(tmp_path)
    assert tomllib.loads((tmp_path / "renderfarm.toml").read_text()) == before
