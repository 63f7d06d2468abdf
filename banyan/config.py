"""Settings: flags over `BANYAN_*` variables over a TOML file over defaults, as one frozen value.

The sections below are all there is; `settings/server.toml` and `settings/worker.toml` show each key with its default.
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
"""A table that can be handed to another process."""


def _octal(value: object) -> object:
    """A text such as "027" as the number that it is for `chmod`."""
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
    """Where the server listens, and with how many processes and threads (each open long-poll takes a thread)."""

    host: str = "127.0.0.1"
    port: int = Field(default=5000, ge=0, le=65535)
    processes: int = Field(default=1, ge=1, le=64)
    threads: int = Field(default=1100, ge=4, le=10_000)


class Tls(Section):
    """The server's certificate and key; without them it speaks plain HTTP. `client_ca` asks clients for one too."""

    certificate: str = ""
    key: str = ""
    client_ca: str = ""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.certificate and (self.key or self.client_ca):
            raise ValueError("key and client_ca are of no use without a certificate; name its file")
        return self


class Limits(Section):
    """What one request may ask for."""

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
    """Where `banyan up` keeps the embedded MongoDB, the logs and the work directories."""

    directory: str = ""


class Auth(Section):
    """Who may read what, and where the first tokens are kept."""

    private: bool = False
    credentials_file: str = ""


class Leases(Section):
    """How often a worker is heard of, and when it counts as lost."""

    heartbeat: Annotated[Seconds, Some] = 20.0
    lost_after: Annotated[Seconds, Some] = 45.0

    @model_validator(mode="before")
    @classmethod
    def _follow(cls, given: object) -> object:
        """Where one of the two is given alone, the other keeps its distance from it."""
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
    """How work is handed out."""

    reserve_after: Seconds = 30.0
    avoid_directory_seconds: Annotated[Seconds, Some] = 600.0
    idempotency_seconds: Annotated[Seconds, Some] = 86_400.0


class Quarantine(Section):
    """When a worker that fails tasks by its own fault gets no more, and for how long."""

    after: int = Field(default=3, ge=0)
    seconds: Seconds = 600.0
    avoid_seconds: Annotated[Seconds, Some] = 10.0


class Rescue(Section):
    """How often the server looks for tasks whose time has come."""

    interval: Annotated[Seconds, Some] = 1.0


class StoredFiles(Section):
    """What one attempt may leave on the server."""

    max_file_bytes: Size = 2**30
    max_attempt_bytes: Size = 4 * 2**30
    max_files: int = Field(default=10_000, ge=0)


class Retention(Section):
    """How long after the end of its task a thing leaves; 0 means never."""

    tasks: Age = 0.0
    history: Age = 0.0
    files: Age = 0.0
    memory_usage: Age = 30 * 86_400.0


class Log(Section):
    """What is written to the log."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class ServerLog(Log):
    """What is written to the server's log, and where the audit log is."""

    audit: str = ""


class Models(Section):
    """Where models are found, first match first, and how their graphs are computed in host processes."""

    path: tuple[str, ...] = ("models",)
    scheduler: Literal["threads", "processes", "synchronous", "distributed"] = "threads"
    cluster: str = ""
    dask: Plain = {}
    host_max_tasks: int = Field(default=10_000, ge=0)
    host_idle_seconds: Annotated[Seconds, Some] = 300.0
    host_start_seconds: Annotated[Seconds, Some] = 120.0


class Posting(Section):
    """Whether the server calls a model's `task` when a task is posted, and how long that may take."""

    check: Literal["if_known", "required", "off"] = "if_known"
    check_seconds: Annotated[Seconds, Some] = 10.0


class ServerSettings(Section):
    """Everything that `banyan server` can be told."""

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
    """What the worker leaves unused for others."""

    cores: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    memory_bytes: Size = 0
    memory_percent: float = Field(default=5.0, ge=0, lt=100)
    gpus: int = Field(default=0, ge=0)
    disk_bytes: Size = 0
    disk_files: int = Field(default=0, ge=0)


class Usage(Section):
    """How often the memory and CPU of running tasks are sampled."""

    interval: Annotated[Seconds, Some] = 1.0


class Work(Section):
    """How tasks are taken and kept."""

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
    """How often what tasks wrote is sent to a server without a shared disk, and whether to look for a shared one."""

    shared: bool = True
    upload_interval: Annotated[Seconds, Some] = 1.0


class WorkerSettings(Section):
    """Everything that `banyan worker` can be told."""

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
    """The server's settings. `flags` nests like the settings; SetupError lists all faults of all sources."""
    return load(ServerSettings, flags or {}, config=config, environ=environ, neighbours=[WorkerSettings])


def load_worker_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    config: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    shared: Path | None = None,
) -> WorkerSettings:
    """The worker's settings. `flags` nests like the settings; SetupError lists all faults of all sources.

    `shared` names a file below `config`, of which the worker takes its own part.
    """
    return load(WorkerSettings, flags or {}, config=config, environ=environ, neighbours=[ServerSettings], shared=shared)


def told_of_server(config: Path | None, environ: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Which part of its settings file the server takes, and which a worker."""
    for path in filter(None, [config or named_file(environ)]):
        yield f"{path}: {told(file_keys(ServerSettings, [WorkerSettings], path), 'the server', 'workers')}"


def told_of_worker(
    config: Path | None, shared: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Iterator[str]:
    """Which part of its settings files the worker takes, and which the server."""
    for path in filter(None, [shared, config or named_file(environ)]):
        yield f"{path}: {told(file_keys(WorkerSettings, [ServerSettings], path), 'the worker', 'the server')}"
