"""Settings: flags over `BANYAN_*` variables over a TOML file over defaults, as one frozen value.

The sections below are complete; `settings/server.toml` and `settings/worker.toml` show each key with its default.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from banyan.config_shares import told
from banyan.config_sources import file_keys, load, named_file
from banyan.wire import parse_duration, parse_size

Size = Annotated[int, BeforeValidator(parse_size)]
"""Bytes; may be written as "1 GiB"."""
Seconds = Annotated[float, BeforeValidator(parse_duration)]
"""Seconds; may be written as "2h"."""
Some = Field(gt=0)
Age = Annotated[Seconds, Field(le=100 * 366 * 86_400.0)]


def _plain(table: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(table)
    except TypeError as error:
        raise ValueError("may hold texts, numbers, true and false, lists and tables; write a date as a text") from error
    return table


Plain = Annotated[dict[str, Any], AfterValidator(_plain)]
"""A table that can be sent to another process."""


def _octal(value: object) -> object:
    """Return a text such as "027" as the number that it is for `chmod`."""
    if not isinstance(value, str):
        return value
    try:
        return int(value, 8)
    except ValueError as error:
        raise ValueError(f'{value!r} is not a umask; write octal digits, such as "027"') from error


class Section(BaseModel):
    """Keys that belong together; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Http(Section):
    """The address of the server, and its numbers of processes and threads (each open long-poll takes a thread)."""

    host: str = "127.0.0.1"
    port: int = Field(default=5000, ge=0, le=65535)
    processes: int = Field(default=1, ge=1, le=64)
    threads: int = Field(default=1100, ge=4, le=10_000)


class Tls(Section):
    """The server's certificate and key; without them it uses plain HTTP. With `client_ca` clients need one too."""

    certificate: str = ""
    key: str = ""
    client_ca: str = ""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.certificate and (self.key or self.client_ca):
            raise ValueError("key and client_ca are of no use without a certificate; name its file")
        return self


class Limits(Section):
    """The limits of one request."""

    max_body_bytes: Annotated[Size, Some] = 16 * 2**20
    max_body_values: Annotated[int, Some] = 1_000_000
    max_list_items: Annotated[int, Some] = 10_000
    max_sweep_points: Annotated[int, Some] = 100_000
    max_submission_bytes: Annotated[Size, Some] = 128 * 2**20
    max_page_items: Annotated[int, Some] = 1_000
    max_answer_bytes: Annotated[Size, Some] = 128 * 2**20
    query_seconds: Annotated[Seconds, Some] = 30.0
    request_seconds: Annotated[Seconds, Some] = 20.0


class Mongo(Section):
    """The replica set that holds everything; without a `uri` `banyan up` starts one of its own."""

    uri: str = ""
    database: str = Field(default="banyan", pattern=r"^[A-Za-z0-9_-]{1,38}$")
    cache_gigabytes: float = Field(default=0.5, ge=0.25, le=10_000, allow_inf_nan=False)


class Data(Section):
    """The directory in which `banyan up` keeps the embedded MongoDB, the logs and the work directories."""

    directory: str = ""


class Auth(Section):
    """The right to read, and the file of the first tokens."""

    private: bool = False
    credentials_file: str = ""


class Leases(Section):
    """The interval of heartbeats, and the silence after which a worker counts as lost."""

    heartbeat: Annotated[Seconds, Some] = 20.0
    lost_after: Annotated[Seconds, Some] = 45.0

    @model_validator(mode="before")
    @classmethod
    def _follow(cls, given: object) -> object:
        """Derive one of the two from the other, with the default ratio, if that is given alone."""
        if isinstance(given, dict) and len(given) == 1:
            with suppress(ValueError):
                if "lost_after" in given:
                    return {**given, "heartbeat": min(20.0, 0.4 * parse_duration(given["lost_after"]))}
                if "heartbeat" in given:
                    return {**given, "lost_after": max(45.0, 2.25 * parse_duration(given["heartbeat"]))}
        return given

    @model_validator(mode="after")
    def _leave_room(self) -> Self:
        if self.lost_after <= self.heartbeat:
            raise ValueError(f"lost_after ({self.lost_after:g} s) must be longer than heartbeat ({self.heartbeat:g} s)")
        return self


class Queueing(Section):
    """The assignment of tasks."""

    reserve_after: Seconds = 30.0
    avoid_directory_seconds: Annotated[Seconds, Some] = 600.0
    idempotency_seconds: Annotated[Seconds, Some] = 86_400.0


class Quarantine(Section):
    """The quarantine of workers that fail tasks by their own fault: its conditions and its length."""

    after: int = Field(default=3, ge=0)
    seconds: Seconds = 600.0
    avoid_seconds: Annotated[Seconds, Some] = 10.0


class Rescue(Section):
    """The intervals of the server's searches for tasks that are due."""

    interval: Annotated[Seconds, Some] = 1.0


class StoredFiles(Section):
    """The limits of one attempt's files on the server."""

    max_file_bytes: Size = 2**30
    max_attempt_bytes: Size = 4 * 2**30
    max_files: int = Field(default=10_000, ge=0)


class Retention(Section):
    """The time after the end of its task at which a document is deleted; 0 means never."""

    tasks: Age = 0.0
    history: Age = 0.0
    files: Age = 0.0
    memory_usage: Age = 30 * 86_400.0


class Log(Section):
    """The contents of the log."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class ServerLog(Log):
    """The contents of the server's log, and the path of the audit log."""

    audit: str = ""


class Models(Section):
    """The directories of models, first match first, and the computation of their graphs in host processes."""

    path: tuple[str, ...] = ("models",)
    scheduler: Literal["threads", "processes", "synchronous", "distributed"] = "threads"
    cluster: str = ""
    dask: Plain = {}
    host_max_tasks: int = Field(default=10_000, ge=0)
    host_idle_seconds: Annotated[Seconds, Some] = 300.0
    host_start_seconds: Annotated[Seconds, Some] = 120.0


class Posting(Section):
    """The call of a model's `task` when a task is posted, and its time limit."""

    check: Literal["if_known", "required", "off"] = "if_known"
    check_seconds: Annotated[Seconds, Some] = 10.0


class ServerSettings(Section):
    """All settings of `banyan server`."""

    server: Http = Http()
    tls: Tls = Tls()
    limits: Limits = Limits()
    mongo: Mongo = Mongo()
    data: Data = Data()
    auth: Auth = Auth()
    leases: Leases = Leases()
    queue: Queueing = Queueing()
    quarantine: Quarantine = Quarantine()
    rescue: Rescue = Rescue()
    files: StoredFiles = StoredFiles()
    retention: Retention = Retention()
    models: Models = Models()
    posting: Posting = Posting()
    log: ServerLog = ServerLog()


class Reserve(Section):
    """The resources that the worker leaves unused for others."""

    cores: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    memory_bytes: Size = 0
    memory_percent: float = Field(default=5.0, ge=0, lt=100)
    gpus: int = Field(default=0, ge=0)
    disk_bytes: Size = 0
    disk_files: int = Field(default=0, ge=0)


class Usage(Section):
    """The sampling of the memory and CPU of running tasks."""

    interval: Annotated[Seconds, Some] = 1.0


class Work(Section):
    """The acceptance and the storage of tasks."""

    max_tasks: int = Field(default=0, ge=0)
    ask_ahead_seconds: Seconds = 2.0
    tail_bytes: Size = 8192
    cgroup: str = ""
    umask: Annotated[int, BeforeValidator(_octal), Field(ge=0, le=0o777)] = 0o022
    core_bytes: Size = 0
    environment: tuple[str, ...] = (
        *("SLURM_*", "SLURMD_NODENAME", "PBS_*", "LSB_*", "SGE_*", "PE_HOSTFILE", "JOB_ID", "JOB_NAME", "NSLOTS"),
        *("OAR_*", "FLUX_*", "COBALT_*", "_CONDOR_*", "TZ", "LANG"),
    )


class SentFiles(Section):
    """The uploads of tasks' files to a server without a shared disk, and the test for a shared one."""

    shared: bool = True
    upload_interval: Annotated[Seconds, Some] = 1.0


class WorkerSettings(Section):
    """All settings of `banyan worker`."""

    url: str = ""
    token: str = ""
    token_file: str = ""
    ca_file: str = ""
    client_certificate: str = ""
    client_key: str = ""
    allow_insecure: bool = False
    name: str = ""
    workdir: str = ""
    cores: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    memory: Size = 0
    gpus: int = Field(default=-1, ge=-1)
    scratch: Size = 0
    custom: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    queues: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    run_as: str = ""
    run_as_group: str = ""
    capabilities: tuple[str, ...] = ()
    time_limit: Seconds = 0.0
    idle_timeout: Seconds = 0.0
    server_lost_after: Annotated[Seconds, Some] = 600.0
    reserve: Reserve = Reserve()
    usage: Usage = Usage()
    tasks: Work = Work()
    files: SentFiles = SentFiles()
    models: Models = Models()
    log: Log = Log()


def load_server_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    config: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> ServerSettings:
    """Return the server's settings. `flags` nests like the settings; SetupError lists all faults of all sources."""
    return load(ServerSettings, flags or {}, config=config, environ=environ, neighbours=[WorkerSettings])


def load_worker_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    config: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    shared: Path | None = None,
) -> WorkerSettings:
    """Return the worker's settings. `flags` nests like the settings; SetupError lists all faults of all sources.

    `shared` names a file below `config`, of which the worker takes its own part.
    """
    return load(WorkerSettings, flags or {}, config=config, environ=environ, neighbours=[ServerSettings], shared=shared)


def told_of_server(config: Path | None, environ: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Yield the line that shows which keys of its settings file are the server's, and which a worker's."""
    for path in filter(None, [config or named_file(environ)]):
        yield f"{path}: {told(file_keys(ServerSettings, [WorkerSettings], path), 'the server', 'workers')}"


def told_of_worker(
    config: Path | None, shared: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Iterator[str]:
    """Yield the lines that show which keys of its settings files are the worker's, and which the server's."""
    for path in filter(None, [shared, config or named_file(environ)]):
        yield f"{path}: {told(file_keys(WorkerSettings, [ServerSettings], path), 'the worker', 'the server')}"
