"""Where settings come from, and that nothing they say shows a password."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from renderfarm.cli import run
from renderfarm.cli.exit_codes import BAD_INPUT, COMPLETED, UNAVAILABLE
from renderfarm.errors import InvalidInput
from renderfarm.settings import Settings, without_services

GOOD = {
    "database_url": ["mysql://u:p%40@h/farm", f"mariadb://u@[::1]:3307/farm?ssl_ca={__file__}"],
    "amqp_url": ["amqp://u:p@h", "amqps://u:p@h:5671/vhost"],
    "redis_url": ["redis://:p@h:6379/0", "rediss://h"],
    "storage_url": ["s3://key:s@h:9000/bucket/prefix", "s3://bucket", "http://u:p@h:5000/farm", "https://h/"],
}
BAD = [
    ("database_url", "postgresql://u:hunter2@h/farm", "must begin with one of mysql://, mariadb://"),
    ("database_url", "u:hunter2@h/farm", "must begin with one of"),
    ("database_url", "mysql://u:hunter2@h", "names no database"),
    ("database_url", "mysql://u:hunter2@h/farm/more", "names no database"),
    ("database_url", "mysql://u:hunter2@/farm", "names no host"),
    ("database_url", "mysql://u:hun/ter2@h/farm", "no valid host or port: in a password,"),
    ("database_url", "mysql://u:hunter2@h:port/farm", "no valid host or port"),
    ("database_url", "mysql://u:hun@ter2@h/farm", "an @ too many: in a password it is written as %40"),
    ("amqp_url", "amqp://u:hun@ter2@h/", "an @ too many"),
    ("redis_url", "redis://:hun@ter2@h/0", "an @ too many"),
    ("storage_url", "s3://key:hun@ter2@h/bucket", "an @ too many"),
    ("database_url", "mysql://u:hunter2@h/farm?ssl_ca=/nope.pem", "a file for ssl_ca that is not there: /nope.pem"),
    ("database_url", "mysql://u:hunter2@h/farm?sslca=hunter2", "an option that is not one of ssl_ca,"),
    ("amqp_url", "http://u:hunter2@h", "must begin with one of amqp://, amqps://"),
    ("redis_url", "redis://:hunter2@h/hunter2", "not the number of a Redis database"),
    ("storage_url", "ftp://u:hunter2@h/farm", "must begin with one of s3://"),
    ("storage_url", "s3://key:hunter2@h", "names no bucket"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RENDERFARM_CONFIG")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(("name", "url"), [(name, url) for name, good in GOOD.items() for url in good])
def test_urls_of_services(name: str, url: str) -> None:
    settings = Settings(**{name: url})  # type: ignore[arg-type]
    assert getattr(settings, name) == url
    assert url not in repr(settings)


@pytest.mark.parametrize(("name", "url", "words"), BAD)
def test_bad_urls_are_explained_without_their_passwords(name: str, url: str, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**{name: url})  # type: ignore[arg-type]
    assert words in str(caught.value)
    for text in (str(caught.value), repr(caught.value)):
        assert "hunter2" not in text
        assert "ter2" not in text


@pytest.mark.parametrize(("name", "url", "words"), BAD)
def test_neither_the_command_line_nor_the_farm_shows_them(
    name: str, url: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"RENDERFARM_{name.upper()}", url)
    assert run(["list"]) == BAD_INPUT
    said = capsys.readouterr()
    assert f"error: RENDERFARM_{name.upper()}: " in said.err
    assert words in said.err.replace("\n", " ")
    assert "ter2" not in said.out + said.err


def test_a_farm_that_cannot_start_does_not_tell_its_passwords(folder: Path) -> None:
    environment = os.environ | {"RENDERFARM_DATABASE_URL": "mysql://u:hunter2@127.0.0.1:port/x"}
    farm = subprocess.run(
        [sys.executable, "-m", "serve_app", "--data", str(folder / "data")],
        capture_output=True,
        text=True,
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert farm.returncode == 1
    assert json.loads(farm.stdout)["error"].startswith("database_url: has no valid host or port")
    assert "hunter2" not in farm.stdout + farm.stderr


def test_an_empty_url_is_none(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    write(folder / "renderfarm.toml", 'redis_url = "redis://h"')
    monkeypatch.setenv("RENDERFARM_REDIS_URL", "")
    assert Settings().redis_url is None


def test_the_file_in_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "renderfarm.toml", 'data = "data"\nport = 4000\nworkers = 3\nblender = ["/opt/blender/blender"]')
    monkeypatch.setenv("RENDERFARM_WORKERS", "5")
    settings = Settings(port=6000)
    assert settings.data == folder / "data"
    assert settings.blender == (Path("/opt/blender/blender"),)
    # The caller is stronger than the environment, and that than the file.
    assert (settings.port, settings.workers) == (6000, 5)


def test_the_file_that_the_environment_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = folder / "etc"
    elsewhere.mkdir()
    write(folder / "renderfarm.toml", "port = 1")
    path = write(elsewhere / "farm.toml", 'data = "data"\nruntime = "/run/farm"')
    monkeypatch.setenv("RENDERFARM_CONFIG", str(path))
    settings = Settings()
    assert (settings.data, settings.runtime, settings.port) == (elsewhere / "data", Path("/run/farm"), 3000)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('database_ulr = "mysql://u:hunter2@h/x"', "no setting 'database_ulr'; did you mean database_url?"),
        ("[table]\nport = 1", "no setting 'table'"),
        ('amqp_url = "amqp://u:hunter2@h\n', "cannot read the settings in"),
    ],
)
def test_mistakes_in_the_file(folder: Path, text: str, words: str) -> None:
    write(folder / "renderfarm.toml", text)
    with pytest.raises(InvalidInput, match=r"renderfarm\.toml") as caught:
        Settings()
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_named_file_must_be_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RENDERFARM_CONFIG", "nowhere.toml")
    assert run(["list"]) == BAD_INPUT
    assert "nowhere.toml: No such file" in capsys.readouterr().err.replace("\n", " ")


def test_passwords_that_everybody_may_read_are_warned_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        write(folder / "renderfarm.toml", 'redis_url = "redis://:hunter2@h"')
        Settings()
        write(folder / "renderfarm.toml", 'database_url = "mysql://root@h/farm"\nredis_url = "redis://h"', 0o644)
        Settings()
        assert caplog.text == ""
        write(folder / "renderfarm.toml", 'redis_url = "redis://:hunter2@h"', 0o644)
        Settings()
    assert "everybody on this machine may read it: chmod 600" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_lease_lasts_several_heartbeats(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RENDERFARM_LEASE_S", "3")
    assert run(["list"]) == BAD_INPUT
    told = "RENDERFARM_HEARTBEAT_S: leases of 3 s need a heartbeat every 1 s or more often"
    assert told in " ".join(capsys.readouterr().err.split())
    monkeypatch.setenv("RENDERFARM_HEARTBEAT_S", "1")
    assert Settings().heartbeat_s == 1.0


def test_a_farm_on_its_own_uses_no_services(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "renderfarm.toml", 'redis_url = "redis://h"')
    monkeypatch.setenv("RENDERFARM_DATABASE_URL", "mysql://u@h/x")
    settings = Settings(**without_services())
    assert not any((settings.database_url, settings.amqp_url, settings.redis_url, settings.storage_url))


def test_the_database_commands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(*arguments: str) -> tuple[int, dict[str, Any]]:
        code = run(["db", *arguments, "--json"])
        return code, json.loads(capsys.readouterr().out)

    write(folder / "renderfarm.toml", 'data = "data"')
    code, before = answer("status")
    assert (code, before["schema"]) == (UNAVAILABLE, None)
    assert answer("upgrade") == (COMPLETED, {"before": None, "schema": before["needed"]})
    assert answer("upgrade") == (COMPLETED, {"before": before["needed"], "schema": before["needed"]})
    assert answer("status") == (COMPLETED, {"schema": before["needed"], "needed": before["needed"]})
    assert run(["db", "status"]) == COMPLETED
    assert run(["db", "upgrade"]) == COMPLETED
