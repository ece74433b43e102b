"""What MySQL and MariaDB add: servers that restart, connections that are cut, transactions that undo each other."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import stamina
from sqlalchemy import Engine, event, make_url, text

from renderfarm.auth import LOCAL_OWNER
from renderfarm.db import SqlDatabase
from renderfarm.db.engine import mysql_engine, transaction
from renderfarm.domain.models import Project
from renderfarm.domain.render_settings import RenderSettings
from renderfarm.domain.states import TaskState
from renderfarm.errors import FarmUnavailable, RolledBack, StorageFull
from renderfarm.ports import Farm
from renderfarm.services import assets, tasks
from renderfarm.settings import Settings
from renderfarm.wiring import close_farm, prepare_farm
from tests.private_servers import PrivateMariaDb, free_port, program
from tests.servers import migrated_mysql_database, mysql_database
from tests.unit.api.world import blend_bytes
from tests.unit.fakes import FakeCompute
from tests.unit.services.story import Clock, Story


@pytest.fixture
def url() -> Iterator[str]:
    with mysql_database() as url:
        yield url


@pytest.fixture
def empty(url: str) -> Iterator[SqlDatabase]:
    with closing(SqlDatabase(mysql_engine(url))) as database:
        yield database


@pytest.fixture
def migrated_url() -> Iterator[str]:
    with migrated_mysql_database() as url:
        yield url


@pytest.fixture
def database(migrated_url: str) -> Iterator[SqlDatabase]:
    with closing(SqlDatabase(mysql_engine(migrated_url))) as database:
        yield database


@pytest.fixture
def farm(migrated_url: str, tmp_path: Path) -> Iterator[Farm]:
    farm = prepare_farm(Settings(data=tmp_path, runtime=tmp_path, database_url=migrated_url), FakeCompute())
    yield farm
    close_farm(farm)


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateMariaDb]:
    with PrivateMariaDb() as server:
        yield server


def _project(name: str) -> Project:
    return Project(id=name, name=name, created_at=0.0)


def _execute(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


# --- errors --------------------------------------------------------------------------------------------------


def test_a_deadlock_undoes_one_and_says_so(database: SqlDatabase) -> None:
    with database.write() as tx:
        for name in ("a", "b"):
            tx.projects.add(_project(name))
    both_have_one = threading.Barrier(2)
    undone: list[RolledBack] = []

    def take(first: str, second: str) -> None:
        try:
            with transaction(database.engine) as connection:
                connection.execute(text(f"UPDATE projects SET created_at = created_at + 1 WHERE id = '{first}'"))
                both_have_one.wait(10)
                connection.execute(text(f"UPDATE projects SET created_at = created_at + 1 WHERE id = '{second}'"))
        except RolledBack as error:
            undone.append(error)

    threads = [threading.Thread(target=take, args=order) for order in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(undone) == 1
    assert "Deadlock" in str(undone[0])
    with database.engine.connect() as connection:
        assert connection.execute(text("SELECT created_at FROM projects")).scalars().all() == [1, 1]


def test_a_writer_who_waits_too_long_for_another_is_undone(database: SqlDatabase) -> None:
    with database.write() as tx:
        tx.leader.take("one", 0.0)

    def take_impatiently() -> None:
        with transaction(database.engine) as connection:
            connection.execute(text("SET SESSION innodb_lock_wait_timeout = 1"))
            connection.execute(text("SELECT * FROM leader FOR UPDATE"))

    with database.write() as tx:
        tx.leader.take("two", 0.0)
        with pytest.raises(RolledBack, match="Lock wait timeout"):
            take_impatiently()


def test_a_connection_that_is_cut_undoes_its_transaction_and_no_more(database: SqlDatabase) -> None:
    def be_cut() -> None:
        with transaction(database.engine) as connection:
            connection.execute(text("INSERT INTO projects VALUES ('cut', 'cut', 0)"))
            number = connection.execute(text("SELECT CONNECTION_ID()")).scalar_one()
            _execute(database.engine, f"KILL CONNECTION {number}")
            connection.execute(text("SELECT 1"))

    with pytest.raises(RolledBack):
        be_cut()
    with database.write() as tx:
        assert tx.projects.get("cut") is None
        tx.projects.add(_project("next"))


def test_a_connection_that_was_cut_while_nobody_used_it_is_noticed_before_use(
    database: SqlDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("renderfarm.db.engine._PING_AFTER_S", 0.0)
    with database.read() as tx:
        tx.projects.get("x")
    with database.write() as tx:
        number = tx._connection.execute(text("SELECT CONNECTION_ID()")).scalar_one()
    other = mysql_engine(database.engine.url.render_as_string(hide_password=False))
    _execute(other, f"KILL CONNECTION {number}")
    other.dispose()
    with database.write() as tx:
        tx.projects.add(_project("next"))


def test_a_cut_while_committing_leaves_open_what_happened(database: SqlDatabase) -> None:
    def cut_before_commit() -> None:
        with transaction(database.engine) as connection:
            connection.execute(text("INSERT INTO projects VALUES ('cut', 'cut', 0)"))
            number = connection.execute(text("SELECT CONNECTION_ID()")).scalar_one()
            _execute(database.engine, f"KILL CONNECTION {number}")

    with pytest.raises(FarmUnavailable) as caught:
        cut_before_commit()
    assert not isinstance(caught.value, RolledBack)


def test_a_full_disk_is_told_as_such(database: SqlDatabase) -> None:
    def fill() -> None:
        with transaction(database.engine) as connection:
            connection.execute(
                text("SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1114, MESSAGE_TEXT = 'The table is full'")
            )

    with pytest.raises(StorageFull, match="no room left: The table is full"):
        fill()


def test_what_does_not_fit_is_refused_and_not_cut_short(database: SqlDatabase) -> None:
    with pytest.raises(Exception, match="Data too long"), database.write() as tx:
        tx.projects.add(replace(_project("long"), name="x" * 300))


def test_readers_cannot_write(database: SqlDatabase) -> None:
    with pytest.raises(Exception, match="READ ONLY"), database.read() as tx:
        tx.projects.add(_project("read"))


# --- servers that are not there ------------------------------------------------------------------------------


def test_no_server_is_told_in_one_line_without_the_password() -> None:
    database = SqlDatabase(mysql_engine(f"mysql://farm:s3cr%40t@127.0.0.1:{free_port()}/farm"))
    with pytest.raises(RolledBack, match=r"Can't connect to MySQL server on '127.0.0.1'") as caught, database.read():
        pass
    assert "s3cr" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_says_nothing_is_given_up_soon() -> None:
    began_s = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"mysql://root@127.0.0.1:{silent.getsockname()[1]}/farm"
        with closing(SqlDatabase(mysql_engine(url))) as database, pytest.raises(FarmUnavailable):
            database.check()
    assert time.monotonic() - began_s < 30.0, "the time for an answer, not for the handshake"


def test_a_wrong_password_is_told_without_it(url: str) -> None:
    wrong = make_url(url).set(username="nobody", password="s3cr@t")
    database = SqlDatabase(mysql_engine(wrong.render_as_string(hide_password=False)))
    with pytest.raises(FarmUnavailable, match="refuses: Access denied for user 'nobody'") as caught:
        database.migrate()
    assert "s3cr" not in str(caught.value)


def test_a_missing_database_is_told_with_what_makes_it(url: str) -> None:
    missing = make_url(url).set(database="renderfarm_test_missing").render_as_string(hide_password=False)
    with pytest.raises(FarmUnavailable, match="CREATE DATABASE `renderfarm_test_missing` CHARACTER SET utf8mb4"):
        SqlDatabase(mysql_engine(missing)).migrate()


def test_tls_is_checked_against_the_certificate_that_the_url_names(tmp_path: Path) -> None:
    def certificate(name: str) -> tuple[Path, Path]:
        files = (tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
        command = [
            program("openssl", "openssl"),
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ]
        whose = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
        files_made = ["-out", str(files[0]), "-keyout", str(files[1])]
        subprocess.run([*command, *whose, *files_made], check=True, capture_output=True)
        return files

    (own, key), (other, _) = certificate("own"), certificate("other")

    def ask(authority: Path) -> str:
        with (
            mysql_database(secure.url) as url,
            transaction(mysql_engine(f"{url}?ssl_ca={authority}")) as connection,
        ):
            return str(connection.execute(text("SHOW STATUS LIKE 'Ssl_cipher'")).one()[1])

    with PrivateMariaDb(f"--ssl-cert={own}", f"--ssl-key={key}") as secure:
        assert ask(own).startswith("TLS_")
        with pytest.raises(FarmUnavailable, match="certificate verify failed"):
            ask(other)


# --- migrations ----------------------------------------------------------------------------------------------


def test_a_first_migration_that_died_half_way_begins_again(empty: SqlDatabase) -> None:
    _execute(empty.engine, "CREATE TABLE execution_log (id INT)", "CREATE TABLE projects (id INT)")
    empty.migrate()
    empty.check()


def test_tables_of_somebody_else_are_left_alone(empty: SqlDatabase) -> None:
    _execute(empty.engine, "CREATE TABLE projects (id INT)", "INSERT INTO projects VALUES (1)")
    with pytest.raises(FarmUnavailable, match="nothing like 'projects' in it"):
        empty.migrate()
    _execute(empty.engine, "DELETE FROM projects", "CREATE TABLE customers (id INT)")
    with pytest.raises(FarmUnavailable, match="nothing like 'customers' in it"):
        empty.migrate()


def test_a_later_migration_that_died_half_way_is_told(empty: SqlDatabase) -> None:
    empty.migrate()
    _execute(empty.engine, "UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(FarmUnavailable, match="died half-way after schema 0001"):
        empty.migrate()


def test_a_migration_waits_for_another(url: str, empty: SqlDatabase) -> None:
    done: list[str] = []
    other = SqlDatabase(mysql_engine(url))

    def migrate_too() -> None:
        other.migrate()
        done.append("other")

    with empty.migrated():
        thread = threading.Thread(target=migrate_too)
        thread.start()
        time.sleep(0.3)
        done.append("first")
    thread.join()
    other.close()
    assert done == ["first", "other"]


# --- a server that is killed ---------------------------------------------------------------------------------


def test_a_server_killed_in_a_transaction_keeps_what_was_committed_and_nothing_else(server: PrivateMariaDb) -> None:
    def lose_the_server(database: SqlDatabase) -> None:
        with database.write() as tx:
            tx.projects.add(_project("half"))
            server.restart()
            tx.projects.add(_project("other half"))

    with mysql_database(server.url) as url, closing(SqlDatabase(mysql_engine(url))) as database:
        database.migrate()
        with database.write() as tx:
            tx.projects.add(_project("whole"))
        with pytest.raises(RolledBack):
            lose_the_server(database)
        with database.read() as tx:
            assert tx.projects.get("whole") is not None
            assert tx.projects.get("half") is None


def test_whoever_submits_while_the_server_restarts_waits_and_loses_nothing(
    server: PrivateMariaDb, tmp_path: Path
) -> None:
    with mysql_database(server.url) as url:
        farm = prepare_farm(Settings(data=tmp_path, runtime=tmp_path, database_url=url), FakeCompute())
        story = Story(farm, Clock())
        asset = story.asset()
        server.kill()
        back = threading.Timer(0.5, server.start)
        back.start()
        task = story.submit(asset)
        back.join()
        assert tasks.get_task(farm, LOCAL_OWNER, task.id).id == task.id
        close_farm(farm)


@pytest.mark.parametrize("committed", [False, True])
def test_a_submission_whose_commit_is_not_answered_is_neither_lost_nor_doubled(farm: Farm, committed: bool) -> None:
    story = Story(farm, Clock())
    asset = story.asset()
    engine: Engine = farm.database.engine  # type: ignore[attr-defined]
    cuts: list[int] = []

    def cut(connection: object) -> None:
        if not cuts:
            dbapi = connection.connection.dbapi_connection  # type: ignore[attr-defined]
            cuts.append(dbapi.thread_id())
            if committed:
                dbapi.commit()
            dbapi._force_close()

    event.listen(engine, "commit", cut)
    task = tasks.submit_task(farm, LOCAL_OWNER, asset_id=asset.id, settings=RenderSettings(), name=None, priority=50)
    assert len(cuts) == 1
    with farm.database.read() as tx:
        assert tx.tasks.get(task.id) is not None
        assert [message.key for message in tx.outbox.unsent(10)].count(task.id) == 1
        assert len([entry for entry in tx.log.page(task_id=task.id) if entry.event == "task.submitted"]) == 1


def _cut_once(farm: Farm, statement: str) -> list[str]:
    """Cut the connection of the next transaction that writes, when it comes to a statement."""
    cuts: list[str] = []

    def cut(connection: Any, _cursor: object, text: str, *_: object) -> None:
        if not cuts and text.startswith(statement):
            cuts.append(text)
            connection.connection.dbapi_connection._force_close()

    event.listen(farm.database.engine, "before_cursor_execute", cut)  # type: ignore[attr-defined]
    return cuts


def test_a_persons_change_that_was_undone_is_done_again(farm: Farm) -> None:
    # T: queued > paused, once
    task = Story(farm, Clock()).submit()
    cuts = _cut_once(farm, "INSERT INTO execution_log")
    assert tasks.pause_task(farm, LOCAL_OWNER, task.id).state is TaskState.PAUSED
    assert len(cuts) == 1
    with farm.database.read() as tx:
        assert [entry.new for entry in tx.log.page(task_id=task.id)] == [None, "paused"]


def test_an_upload_whose_last_step_was_undone_is_kept(farm: Farm, tmp_path: Path) -> None:
    scene = tmp_path / "scene.blend"
    scene.write_bytes(blend_bytes())
    cuts = _cut_once(farm, "INSERT INTO outbox")
    asset = assets.store_asset(farm, LOCAL_OWNER, upload=scene, file_name="scene.blend", name=None, main=None)
    assert len(cuts) == 1
    assert [(found.id, found.version) for found in assets.list_assets(farm, LOCAL_OWNER, limit=9, offset=0).items] == [
        (asset.id, 1)
    ]


def test_what_stays_undone_is_told_in_the_end(farm: Farm) -> None:
    task = Story(farm, Clock()).submit()
    event.listen(
        farm.database.engine,  # type: ignore[attr-defined]
        "before_cursor_execute",
        lambda connection, *_: connection.connection.dbapi_connection._force_close(),
    )
    with stamina.set_testing(True, attempts=3), pytest.raises(RolledBack):
        tasks.pause_task(farm, LOCAL_OWNER, task.id)
