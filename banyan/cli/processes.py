"""`banyan up`, `banyan server`, `banyan worker`: the commands that start processes and stay until they are stopped."""

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from banyan import signals
from banyan.cli import late_typer as typer
from banyan.errors import SetupError
from banyan.home import below_home

if TYPE_CHECKING:
    from banyan.up import Running

Config = Annotated[Path | None, typer.Option("--config", help="A settings file; see settings/ in the sources.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(up)
    app.command()(server)
    app.command()(worker)


def up(
    data: Annotated[Path | None, typer.Option(help="Where everything is kept.")] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="The port; 0 takes a free one.")] = None,
    cores: Annotated[float | None, typer.Option(help="Cores for tasks; all by default.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory for tasks, such as '8 GiB'.")] = None,
    tls: Annotated[bool, typer.Option("--tls", help="HTTPS, with a certificate made for this machine.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON when ready, else nothing.")] = False,
    config: Config = None,
    worker_config: Annotated[
        Path | None, typer.Option(help="A settings file for the worker, over its part of --config.")
    ] = None,
) -> None:
    """Start everything on this machine: MongoDB, the server and one worker. Ctrl-C stops it all."""
    from banyan.cli.connection import pointer_directory
    from banyan.config import load_server_settings
    from banyan.up import Plan, announced, running

    signals.begin()
    flags = _nested({("data", "directory"): data and str(data), ("server", "host"): host, ("server", "port"): port})
    settings = load_server_settings(flags, config=config)
    config = config or (Path(os.environ["BANYAN_CONFIG"]) if os.environ.get("BANYAN_CONFIG") else None)
    options = [*_option("--cores", cores), *_option("--memory", memory)]
    plan = Plan(
        settings=settings,
        data=Path(settings.data.directory).expanduser().absolute() if settings.data.directory else default_data(),
        config=config and config.absolute(),
        worker_config=worker_config and worker_config.absolute(),
        worker_options=tuple(options),
        tls=tls,
    )
    with (
        _until_stopped(),
        _saying(quiet=as_json) as say,
        running(plan, say=say) as ready,
        announced(ready, pointer_directory(os.environ)),
    ):
        say("")
        print(_line(ready) if as_json else _welcome(ready, plan.data), flush=True)
        ready.watch()


def server(
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="The port.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="A certificate (PEM), to speak HTTPS.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key, if that is in another file.")] = None,
    credentials: Annotated[
        Path | None, typer.Option(help="JSON with the first tokens; made when absent, readable by its owner alone.")
    ] = None,
    config: Config = None,
    fd: Annotated[int | None, typer.Option(hidden=True, help="A listening socket that was inherited.")] = None,
    mongo_uri_fd: Annotated[int | None, typer.Option(hidden=True, help="Read mongo.uri there, when it comes.")] = None,
    wait_for_mongo: Annotated[bool, typer.Option(hidden=True, help="Wait for MongoDB as long as it takes.")] = False,
) -> None:
    """Start the server alone, on the replica set that the setting mongo.uri names."""
    from banyan.api.server import serve
    from banyan.config import load_server_settings, told_of_server

    signals.begin()
    flags: dict[tuple[str, ...], Any] = {
        ("server", "host"): host,
        ("server", "port"): port,
        ("tls", "certificate"): certificate and str(certificate),
        ("tls", "key"): key and str(key),
    }
    if mongo_uri_fd is not None:
        with open(mongo_uri_fd) as pipe:
            flags[("mongo", "uri")] = pipe.read()
    settings = load_server_settings(_nested(flags), config=config)
    _say_whose("server", told_of_server(config))
    if not settings.mongo.uri:
        raise SetupError("mongo.uri is not set; name a replica set with BANYAN_MONGO__URI, or use `banyan up`")
    serve(settings, credentials=credentials, listen_fd=fd, wait=wait_for_mongo)


def worker(
    url: Annotated[str | None, typer.Option(help="The server.")] = None,
    token: Annotated[str | None, typer.Option(help="A worker's token; better in a file.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="A file with a worker's token.")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="The authority that vouches for the server (PEM).")] = None,
    cores: Annotated[float | None, typer.Option(help="Cores to offer.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory to offer, such as '8 GiB'.")] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs to offer.")] = None,
    queues: Annotated[list[str] | None, typer.Option(help="Serve only these; several, or separated by commas.")] = None,
    labels: Annotated[list[str] | None, typer.Option(help="KEY=VALUE that tasks may require; several.")] = None,
    name: Annotated[str | None, typer.Option(help="The name to show.")] = None,
    workdir: Annotated[Path | None, typer.Option(help="Where tasks run and leave their files.")] = None,
    models: Annotated[list[Path] | None, typer.Option(help="A directory with models; several.")] = None,
    time_limit: Annotated[str | None, typer.Option(help="How long to live, such as '2h'.")] = None,
    idle_timeout: Annotated[str | None, typer.Option(help="Stop after so long without a task.")] = None,
    max_tasks: Annotated[int | None, typer.Option(help="Leave after so many tasks.")] = None,
    tasks: Annotated[Path | None, typer.Option(help="Run this JSON-lines file of tasks, without a server.")] = None,
    config: Config = None,
    shared_config: Annotated[Path | None, typer.Option(hidden=True, help="A settings file below --config.")] = None,
    token_fd: Annotated[int | None, typer.Option(hidden=True, help="Read the token there.")] = None,
) -> None:
    """Start a worker: it pulls tasks from the server and runs them. SIGTERM drains, a second one stops now."""
    from banyan.config import load_worker_settings, told_of_worker
    from worker.daemon import main

    signals.begin()
    flags = {
        ("url",): url,
        ("token",): _unseen(token, token_fd),
        ("token_file",): token_file and str(token_file),
        ("ca_file",): ca_file and str(ca_file),
        ("cores",): cores,
        ("memory",): memory,
        ("gpus",): gpus,
        ("queues",): queues and _separate(queues),
        ("labels",): labels and _labels(labels),
        ("name",): name,
        ("workdir",): workdir and str(workdir),
        ("models", "path"): [str(path) for path in models] if models else None,
        ("time_limit",): time_limit,
        ("idle_timeout",): idle_timeout,
        ("tasks", "max_tasks"): max_tasks,
    }
    settings = load_worker_settings(_nested(flags), config=config, shared=shared_config)
    _say_whose("worker", told_of_worker(config, shared_config))
    raise typer.Exit(main(settings, tasks))


def _say_whose(program: str, lines: Iterable[str]) -> None:
    """Print on stderr which part of a settings file is for which program."""
    for line in lines:
        print(f"banyan {program}: {line}", file=sys.stderr, flush=True)


def _unseen(token: str | None, descriptor: int | None) -> str | None:
    """Return the token; if the command line or the environment shows it to other processes, start anew without it."""
    if descriptor is not None:
        with open(descriptor) as file:
            return file.read()
    shown = token or os.environ.get("BANYAN_TOKEN")
    if not shown or sys.argv[1:2] != ["worker"]:
        return token
    hidden = os.memfd_create("token", 0)  # it stays open in the program that replaces this one
    os.write(hidden, shown.encode())
    os.lseek(hidden, 0, os.SEEK_SET)
    environment = {name: value for name, value in os.environ.items() if name != "BANYAN_TOKEN"}
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # pending until `banyan.__main__` ends in order
    os.execve(sys.executable, [*_without_token(sys.orig_argv), "--token-fd", str(hidden)], environment)  # noqa: S606 - it is this very program


def _without_token(arguments: Sequence[str]) -> list[str]:
    kept = [each for each in arguments if not each.startswith("--token=")]
    while "--token" in kept:
        place = kept.index("--token")
        del kept[place : place + 2]
    return kept


def _nested(flags: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    """Return the given flags, nested like the settings."""
    values: dict[str, Any] = {}
    for (*sections, key), value in flags.items():
        if value is not None:
            table = values
            for section in sections:
                table = table.setdefault(section, {})
            table[key] = value
    return values


def _separate(texts: list[str]) -> list[str]:
    return [each for text in texts for each in text.split(",")]


def _labels(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in _separate(texts)]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise SetupError(f"--labels {','.join(texts)}: write KEY=VALUE, several separated by commas")
    return {key: value for key, _, value in pairs}


def _option(name: str, value: object) -> list[str]:
    return [] if value is None else [name, str(value)]


def default_data() -> Path:
    """Return the default directory of `banyan up`."""
    return below_home(os.environ, "XDG_DATA_HOME", ".local/share", "name a directory with --data") / "banyan"


@contextmanager
def _until_stopped() -> Iterator[None]:
    """End the block once at a signal that asks to end; while it unwinds, further ones are ignored."""

    class Stopped(BaseException):
        """A signal asked us to stop."""

    stopped = False

    def stop(number: int) -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            raise Stopped

    with suppress(Stopped), signals.listening(stop, lambda line: signals.say(f"banyan up: {line}")):
        yield


@contextmanager
def _saying(*, quiet: bool) -> Iterator[Any]:
    """Yield a function that shows the current step, on a terminal only; an empty text ends it."""
    from rich.console import Console

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _: None
        return
    with console.status("Starting") as status:
        yield lambda text: status.update(f"{text} …") if text else status.stop()


def _line(ready: "Running") -> str:
    line = {
        "url": ready.url,
        "admin_token": ready.admin_token,
        "provider_token": ready.provider_token,
        "mongo_uri": ready.mongo_uri,
        "pids": ready.pids(),
    }
    return json.dumps(line | ({"ca_file": ready.trust.ca_file} if ready.trust.ca_file else {}))


_COPY = "(for clients on other machines: BANYAN_CA_FILE)"


def _welcome(ready: "Running", data: Path) -> str:
    from banyan.wire import format_size

    resources = ready.worker.get("resources", {})
    offer = f"{resources.get('cores', 0):g} cores, {format_size(resources.get('memory', 0))}"
    gpus = f", {resources['gpus']} GPUs" if resources.get("gpus") else ""
    return "\n".join(
        [
            f"Banyan is up at {ready.url}",
            f"  worker   {ready.worker.get('name')}: {offer}{gpus}",
            f"  data     {data} (logs in {data / 'logs'})",
            f"  token    {ready.provider_token}",
            *([f"  CA       {ready.trust.ca_file} {_COPY}"] if ready.own_authority else []),
            "In a second terminal: banyan submit --wait -- echo hello",
            "Ctrl-C stops everything.",
        ]
    )
