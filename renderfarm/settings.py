"""The farm's settings: read once at start, frozen, passed down. Nothing else reads the environment."""

from __future__ import annotations

import difflib
import logging
import math
import os
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from platformdirs import user_data_path, user_state_path
from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from renderfarm import urls
from renderfarm.errors import InvalidInput

_FILE_NAME = "renderfarm.toml"
#: Paths which, relative in the file, are relative to it.
_FILE_PATHS = ("data", "runtime")
#: One may be late and one lost.
_BEATS_PER_LEASE = 3

_log = logging.getLogger(__name__)


class Settings(BaseSettings):
    """Every setting, each from the environment as ``RENDERFARM_<NAME>``, else from ``renderfarm.toml``.

    That file is the one that ``RENDERFARM_CONFIG`` names, or the one in the working directory if there is one.

    Raises:
        pydantic.ValidationError: a value cannot be; its text shows no values, which may be passwords.
        InvalidInput: the file is not there, not TOML, or has an unknown key.
    """

    model_config = SettingsConfigDict(env_prefix="RENDERFARM_", frozen=True, extra="forbid", hide_input_in_errors=True)

    data: Path = Field(default_factory=lambda: user_data_path("renderfarm"))
    """Folder of everything the embedded farm keeps."""
    host: str = "127.0.0.1"
    """Address of the HTTP API. Only loopback, for as long as there are no accounts."""
    port: int = Field(default=3000, ge=0, le=65535)
    """Port of the HTTP API; 0 takes a free one."""
    url: str | None = None
    """A running farm's URL, for the command line; None: the farm that runs on this machine."""
    runtime: Path = Field(default_factory=lambda: user_state_path("renderfarm"))
    """Folder in which a running farm leaves its URL for the command line."""

    name: str = Field(default="renderfarm", pattern=r"^[a-z0-9][a-z0-9-]{0,60}$")
    """Farms that share a RabbitMQ or a Redis keep apart what is theirs by their names."""
    database_url: str | None = Field(default=None, repr=False)
    """``mysql://USER:PASSWORD@HOST:3306/NAME`` (MariaDB, too); None: SQLite in the data folder."""
    amqp_url: str | None = Field(default=None, repr=False)
    """RabbitMQ, ``amqp://USER:PASSWORD@HOST:5672/VHOST`` or ``amqps://…``; None: a table in the database."""
    redis_url: str | None = Field(default=None, repr=False)
    """``redis://:PASSWORD@HOST:6379/0`` or ``rediss://…``; None: every reader asks the database."""
    storage_url: str | None = Field(default=None, repr=False)
    """``s3://KEY:SECRET@HOST:PORT/BUCKET/PREFIX``, or ``http(s)://USER:PASSWORD@HOST:PORT/FOLDER`` for Dufs and
    other WebDAV servers; None: a folder in the data folder."""
    storage_links: bool = False
    """Send whoever downloads to the object store itself, by a link that it has signed; it must be in their reach."""

    blender: Annotated[tuple[Path, ...], NoDecode] = ()
    """Blender programs, best first, separated as PATH is.

    Empty: the ``bpy`` of this Python, else ``blender`` on the PATH.
    """
    workers: int = Field(default=0, ge=0, le=256)
    """Workers on each node; 0: one for each eight of its cores, at least one. A node with more GPUs has as many."""

    frame_timeout_s: float = Field(default=24 * 3600.0, gt=0)
    no_progress_timeout_s: float = Field(default=1800.0, gt=0)
    """Blender may be silent for long while it builds a heavy scene."""
    start_timeout_s: float = Field(default=120.0, gt=0)
    """From starting Blender to its first answer."""
    open_timeout_s: float = Field(default=900.0, gt=0)
    """Opening and inspecting a file."""
    lease_s: float = Field(default=15.0, gt=0)
    """A lease that its worker has not renewed for this long is lost."""
    heartbeat_s: float = Field(default=2.0, gt=0, validate_default=True)
    """Workers renew their leases and report progress this often: three times in ``lease_s`` at least."""
    tick_s: float = Field(default=1.0, gt=0)
    """The scheduler hears from the workers this often even when nobody wakes it."""

    upload_max_bytes: int = Field(default=8 * 2**30, gt=0)
    """The largest upload, and the largest project once unpacked."""
    upload_files_max: int = Field(default=50_000, gt=0)
    cache_max_bytes: int = Field(default=50 * 2**30, gt=0)
    """Unpacked scenes that a node keeps for its workers."""
    thumbnails_max_bytes: int = Field(default=2**30, gt=0)
    """Small pictures of outputs that somebody has asked for, and may ask for again."""
    disk_reserve_bytes: int = Field(default=256 * 2**20, ge=0)
    """Room that pictures and scenes leave on a disk, so that the database can still write down what happens."""
    object_store_memory_bytes: int = Field(default=128 * 2**20, ge=80 * 2**20)
    """Ray's shared memory; the farm passes files by the store, not through Ray."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Name the sources, the strongest first."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, _from_file(cls))

    @field_validator(*urls.CHECKS)
    @classmethod
    def _service_url(cls, value: str | None, info: ValidationInfo) -> str | None:
        if not value:
            return None
        urls.CHECKS[str(info.field_name)](value)
        return value

    @field_validator("heartbeat_s")
    @classmethod
    def _in_time(cls, value: float, info: ValidationInfo) -> float:
        longest_s = info.data.get("lease_s", math.inf) / _BEATS_PER_LEASE
        if value > longest_s:
            raise ValueError(
                f"leases of {info.data['lease_s']:g} s need a heartbeat every {longest_s:g} s or more often"
            )
        return value

    @field_validator("blender", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value

    @field_validator("data", "runtime")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("host")
    @classmethod
    def _loopback(cls, value: str) -> str:
        if value not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError("the farm has no accounts yet, so it listens on loopback only")
        return value


def without_services() -> dict[str, Any]:
    """Return the settings of a farm that is on its own, whatever services the environment and the file name."""
    return dict.fromkeys(urls.CHECKS)


def _from_file(settings: type[Settings]) -> dict[str, Any]:
    """Read the settings of the file, if there is one."""
    named = os.environ.get("RENDERFARM_CONFIG")
    path = Path(named or _FILE_NAME).expanduser().absolute()
    if not named and not path.is_file():
        return {}
    try:
        with path.open("rb") as stream:
            values = tomllib.load(stream)
            mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InvalidInput(f"cannot read the settings in {path}: {why}") from error
    for key in values:
        if key not in settings.model_fields:
            close = difflib.get_close_matches(key, settings.model_fields, 1)
            raise InvalidInput(f"{path}: no setting {key!r}{f'; did you mean {close[0]}?' if close else ''}")
    if mode & stat.S_IROTH and any(urls.has_password(str(values.get(key, ""))) for key in urls.CHECKS):
        _log.warning("%s has passwords in it, and everybody on this machine may read it: chmod 600", path)
    return values | {key: path.parent / Path(values[key]).expanduser() for key in _FILE_PATHS if key in values}


#: What Ray does for its own developers, for a dashboard that this farm starts without, and for crowds of short tasks:
#: 2 % of a core (11.6 % of an idle farm on two cores with it, 9.0 % without some of it, 8.2 % without all; Ray 2.60).
_QUIET_RAY = {
    # Serve looks ten times a second whether its few actors are as they should be: another 4 % of a core.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "1.0",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "10000",
    "RAY_event_stats": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",  # never: only the dashboard asks for them
    "REPORTER_UPDATE_INTERVAL_MS": "30000",  # as for how much memory and processor each process takes
    "RAY_raylet_report_resources_period_milliseconds": "500",
    "RAY_raylet_check_gc_period_milliseconds": "1000",
    "RAY_kill_idle_workers_interval_ms": "2000",
    "RAY_object_manager_timer_freq_ms": "1000",
    "RAY_memory_monitor_refresh_ms": "1000",  # sessions look after their memory themselves
}


def prepare_ray_environment() -> None:
    """Set what Ray reads from the environment while it is imported. Before ``import ray``, in the farm's process."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing leaves the machine
    os.environ["RAY_DEDUP_LOGS"] = "0"
    for name, value in _QUIET_RAY.items():
        os.environ.setdefault(name, value)
    # Takes the client's time-out header off before Serve obeys it.
    os.environ["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] = "serve_app.proxy.middlewares"


def child_environment(own: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment for a child, with some variables of the child's own."""
    return os.environ | dict(own)


def give_children(own: Mapping[str, str]) -> None:
    """Let all children that this process starts from now on have these variables."""
    os.environ.update(own)
