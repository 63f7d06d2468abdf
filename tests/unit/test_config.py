"""Settings: their order, their faults, and the files that show them."""

import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from banyan.config import (
    ServerSettings,
    WorkerSettings,
    load_server_settings,
    load_worker_settings,
    told_of_server,
    told_of_worker,
)
from banyan.config_sources import variables
from banyan.errors import SetupError

SETTINGS = Path(__file__).parents[2] / "settings"


def keys(table: dict[str, object], model: type[BaseModel]) -> set[str]:
    """The dotted keys of a settings file; a table that is the value of a key is no section."""
    found = set()
    for name, value in table.items():
        annotation = model.model_fields[name].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            assert isinstance(value, dict)
            found |= {f"{name}.{key}" for key in keys(value, annotation)}
        else:
            found.add(name)
    return found


@pytest.mark.parametrize(("name", "model"), [("server", ServerSettings), ("worker", WorkerSettings)])
def test_the_settings_files_show_every_key_with_its_default(name: str, model: type[BaseModel]) -> None:
    table = tomllib.loads((SETTINGS / f"{name}.toml").read_text())
    assert keys(table, model) == {".".join(path) for _, path in variables(model)}
    assert model.model_validate(table) == model()


def test_flags_go_before_the_environment_before_the_file_before_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[server]\nport = 1\nthreads = 50\nprocesses = 2\n[leases]\nlost_after = '2 minutes'\n")
    environ = {"BANYAN_CONFIG": str(file), "BANYAN_SERVER__PORT": "2", "BANYAN_SERVER__THREADS": "60"}
    settings = load_server_settings({"server": {"port": 3}}, environ=environ)
    assert (settings.server.port, settings.server.threads, settings.server.processes) == (3, 60, 2)
    assert settings.leases.lost_after == 120
    assert settings.server.host == "127.0.0.1"


def test_the_flag_for_the_file_goes_before_its_variable(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("name = 'a'")
    (tmp_path / "b.toml").write_text("name = 'b'")
    settings = load_worker_settings(config=tmp_path / "a.toml", environ={"BANYAN_CONFIG": str(tmp_path / "b.toml")})
    assert settings.name == "a"


def test_all_faults_of_all_sources_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[server]\nprt = 1\nprocesses = 'many'\n[nothing]\nx = 1\n")
    environ = {"BANYAN_LEASE__HEARTBEAT": "3", "BANYAN_FILES__MAX_FILE_BYTES": "lots"}
    with pytest.raises(SetupError) as caught:
        load_server_settings({"server": {"port": 70_000}}, config=file, environ=environ)
    assert str(caught.value).splitlines() == [
        "the settings are faulty:",
        "  BANYAN_LEASE__HEARTBEAT: there is no such setting; did you mean BANYAN_LEASES__HEARTBEAT?",
        "  server.port: should be less than or equal to 65535",
        "  server.processes: should be a valid integer, unable to parse string as an integer",
        "  server.prt: there is no such setting; did you mean server.port?",
        "  files.max_file_bytes: 'lots' is not a size; write bytes (1073741824) or a text such as '1 GiB' or '500 MB'",
        "  nothing: there is no such setting",
    ]


def test_a_setting_is_found_without_its_section(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("port = 1\nnothing_like_it = 2\n")
    with pytest.raises(SetupError) as caught:
        load_server_settings(config=file, environ={"BANYAN_PORT": "3"})
    assert str(caught.value).splitlines()[1:] == [
        "  BANYAN_PORT: there is no such setting; did you mean BANYAN_SERVER__PORT?",
        "  port: there is no such setting; did you mean server.port?",
        "  nothing_like_it: there is no such setting",
    ]


def test_variables_of_the_client_the_tasks_and_the_other_program_are_left_alone() -> None:
    environ = {
        "BANYAN_URL": "http://127.0.0.1:1",
        "BANYAN_TOKEN": "secret",
        "BANYAN_TASK_ID": "1",
        "BANYAN_EXECUTION_ID": "2",
        "BANYAN_WORKDIR": "/tmp",
        "BANYAN_PROGRESS": "p",
        "BANYAN_RESULT": "r",
        "BANYAN_SWEEP_ID": "s",
        "BANYAN_SWEEP_INDEX": "3",
        "BANYAN_MODELS__PATH": '["models"]',
        "BANYANO": "not ours",
    }
    assert load_server_settings(environ=environ) == ServerSettings()
    worker = load_worker_settings(environ={"BANYAN_LEASES__HEARTBEAT": "3", **environ})
    assert worker == WorkerSettings(url="http://127.0.0.1:1", token="secret", workdir="/tmp")


def test_sizes_durations_lists_and_tables_are_read_from_variables() -> None:
    environ = {
        "BANYAN_MEMORY": "2 GiB",
        "BANYAN_TIME_LIMIT": "2h",
        "BANYAN_MODELS__PATH": '["/a", "/b"]',
        "BANYAN_LABELS": '{"site": "north"}',
    }
    settings = load_worker_settings(environ=environ)
    assert (settings.memory, settings.time_limit) == (2 * 2**30, 7200)
    assert (settings.models.path, settings.labels) == (("/a", "/b"), {"site": "north"})


def test_a_list_that_is_no_json_is_explained() -> None:
    with pytest.raises(SetupError, match=r"queues: should be a list, .* in a variable, a JSON list"):
        load_worker_settings(environ={"BANYAN_QUEUES": "a,b"})


def test_dask_configuration_is_any_table_of_plain_values(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[models.dask.simsvc.model]\ndata = '/d'\n")
    given = load_server_settings(config=file, environ={"BANYAN_MODELS__DASK": '{"array": {"chunk-size": "1MiB"}}'})
    assert given.models.dask == {"simsvc": {"model": {"data": "/d"}}, "array": {"chunk-size": "1MiB"}}
    file.write_text("[models.dask]\nsince = 2024-05-01\n")
    with pytest.raises(SetupError, match=r"models.dask: may hold texts, numbers, .*; write a date as a text"):
        load_worker_settings(config=file, environ={})


def test_an_unreadable_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"none.toml cannot be read: .*No such file"):
        load_server_settings(config=tmp_path / "none.toml", environ={})
    (tmp_path / "bad.toml").write_text("[server\n")
    with pytest.raises(SetupError, match=r"bad.toml cannot be read: .*line 1"):
        load_server_settings(config=tmp_path / "bad.toml", environ={})


@pytest.mark.parametrize(
    ("given", "heartbeat", "lost_after"),
    [({}, 20, 45), ({"LOST_AFTER": "5"}, 2, 5), ({"HEARTBEAT": "2"}, 2, 45), ({"HEARTBEAT": "40"}, 40, 90)],
)
def test_a_lease_leaves_room_for_its_heartbeat(given: dict[str, str], heartbeat: float, lost_after: float) -> None:
    leases = load_server_settings(environ={f"BANYAN_LEASES__{key}": value for key, value in given.items()}).leases
    assert (leases.heartbeat, leases.lost_after) == (heartbeat, lost_after)


def test_a_lease_shorter_than_its_heartbeat_is_refused() -> None:
    environ = {"BANYAN_LEASES__HEARTBEAT": "5", "BANYAN_LEASES__LOST_AFTER": "5"}
    with pytest.raises(SetupError, match=r"leases: lost_after \(5 s\) must be longer than heartbeat \(5 s\)"):
        load_server_settings(environ=environ)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ServerSettings().leases.heartbeat = 1.0


BOTH = """
cores = 3
labels = {site = "north"}
[models]
path = ["/m"]
[log]
level = "warning"
audit = "/audit"
[files]
max_files = 7
upload_interval = 2
[reserve]
cores = 1
[server]
port = 5
"""


def test_one_file_is_for_server_and_worker_and_each_takes_its_part(tmp_path: Path) -> None:
    file = tmp_path / "both.toml"
    file.write_text(BOTH)
    server, worker = load_server_settings(config=file, environ={}), load_worker_settings(config=file, environ={})
    assert (server.models.path, server.log.level, server.log.audit) == (("/m",), "warning", "/audit")
    assert (server.files.max_files, server.server.port) == (7, 5)
    assert (worker.models.path, worker.log.level, worker.files.upload_interval) == (("/m",), "warning", 2)
    assert (worker.cores, worker.labels, worker.reserve.cores) == (3, {"site": "north"}, 1)
    both = "for both: models.path, log.level"
    ours, theirs = "log.audit, files.max_files, server.port", "cores, labels, files.upload_interval, reserve.cores"
    assert list(told_of_server(file, {})) == [f"{file}: for the server: {ours}; {both}; for workers: {theirs}"]
    assert list(told_of_worker(file, environ={})) == [
        f"{file}: for the worker: {theirs}; {both}; for the server: {ours}"
    ]
    assert list(told_of_worker(None, environ={})) == []


def test_a_workers_own_file_goes_before_its_part_of_the_shared_one(tmp_path: Path) -> None:
    shared, own = tmp_path / "both.toml", tmp_path / "own.toml"
    shared.write_text(BOTH)
    own.write_text("cores = 5\n[models]\nscheduler = 'synchronous'\n")
    worker = load_worker_settings(config=own, shared=shared, environ={"BANYAN_RESERVE__CORES": "2"})
    assert (worker.cores, worker.reserve.cores, worker.labels) == (5, 2, {"site": "north"})
    assert (worker.models.path, worker.models.scheduler) == (("/m",), "synchronous")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[nothing]\nx = 1", "nothing: there is no such setting"),
        ("colour = 1", "colour: there is no such setting"),
        ("[reserve]\ncoers = 1", "reserve.coers: there is no such setting; did you mean reserve.cores?"),
        ("[leases]\nheartbaet = 1", "leases.heartbaet: there is no such setting; did you mean leases.heartbeat?"),
        ("[models]\npaths = []", "models.paths: there is no such setting; did you mean models.path?"),
        ("[files]\nnothing = 1", "files.nothing: there is no such setting"),
        ("models = 3", "models: should be a valid dictionary or instance of Models"),
    ],
)
def test_what_is_for_neither_is_refused_by_both(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "both.toml"
    file.write_text(text)
    for load in (load_server_settings, load_worker_settings):
        with pytest.raises(SetupError) as caught:
            load(config=file, environ={})
        assert str(caught.value).splitlines()[1:] == [f"  {fault}"]
