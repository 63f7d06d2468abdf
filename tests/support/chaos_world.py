"""The world that a chaos run breaks: three mongods, two servers, four workers, and lines that can be cut."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

from pymongo.errors import PyMongoError

from tests.support.chaos_plan import LEASE_SECONDS, SERVERS, WORKERS, Fault, Means
from tests.support.happened import Effect
from tests.support.models import write_models
from tests.support.processes import Program, ServerProgram, server, worker
from tests.support.proxy import Line, Proxy
from tests.support.replica_set import ReplicaSet, replica_set

DATABASE = "chaos"
_SCRIPT = """\
    # effects seconds fails: how many of a hundred attempts fail
    attempt=$BANYAN_EXECUTION_ID
    echo "$attempt begin $(date +%s.%N)" >> "$1"
    sleep "$2"
    [ $((0x${attempt#??????????????????????} % 100)) -lt "$3" ] && exit 3
    echo "{\\"execution\\": \\"$attempt\\"}" > "$BANYAN_RESULT"
    echo "$attempt end $(date +%s.%N)" >> "$1"
"""
_MODEL = """
    def say(what):
        line = f"{os.environ['BANYAN_EXECUTION_ID']} {what} {time.time():.9f}\\n"
        with open(spec.inputs["effects"], "a") as effects:
            effects.write(line)

    def work():
        say("begin")
        until = time.monotonic() + spec.inputs["seconds"]
        while time.monotonic() < until:
            if cancel.get():
                raise RuntimeError("cancelled")
            time.sleep(0.01)
        attempt = os.environ["BANYAN_EXECUTION_ID"]
        if int(attempt[-2:], 16) % 100 < spec.inputs["fails"]:
            raise ValueError("as planned")
        say("end")
        return {"execution": attempt}

    return delayed(work)()
"""


@dataclass
class World:
    """All that runs; `line` is a client's way to whichever server takes it."""

    directory: Path
    means: Means
    trio: ReplicaSet
    servers: list[ServerProgram]
    line: Proxy
    workers: list[Program] = field(default_factory=list)
    lines: list[Proxy] = field(default_factory=list)

    def begin(self, fault: Fault) -> None:
        """Let it happen; only from the main thread, for processes die with the thread that began them."""
        {"worker": self._break_worker, "server": self._break_server, "mongod": self._break_mongod}[fault.target](fault)

    def _break_worker(self, fault: Fault) -> None:
        program, line = self.workers[fault.number], self.lines[fault.number]
        acts: dict[str, Callable[[], None]] = {
            "kill": lambda: program.send(signal.SIGKILL),
            "stop": lambda: program.send(signal.SIGSTOP),
            "freeze": lambda: program.send(signal.SIGSTOP, family=True),
            "cut": lambda: line.set(Line.CUT),
            "hold": lambda: line.set(Line.HELD),
            "swallow": lambda: line.set(Line.SWALLOWING),
            "delay": lambda: line.set(Line.OPEN, delay_seconds=0.7),
        }
        acts[fault.kind]()

    def _break_server(self, fault: Fault) -> None:
        number = signal.SIGKILL if fault.kind == "kill" else signal.SIGSTOP
        self.servers[fault.number].send(number, family=True)

    def _break_mongod(self, fault: Fault) -> None:
        member = self.trio.members[fault.number]
        acts: dict[str, Callable[[], None]] = {
            "kill": lambda: member.send(signal.SIGKILL),
            "stop": lambda: member.send(signal.SIGSTOP),
            "step down": self._step_down,
            "cut": lambda: member.proxy.set(Line.CUT),
            "hold": lambda: member.proxy.set(Line.HELD),
        }
        acts[fault.kind]()

    def _step_down(self) -> None:
        with suppress(PyMongoError, AssertionError):  # where there is no primary now, none can step down
            self.trio.step_down(seconds=3)

    def end(self, fault: Fault) -> None:
        """Undo it: what was killed starts again, what was stopped goes on, what was cut is joined."""
        if fault.target == "mongod":
            member = self.trio.members[fault.number]
            member.proxy.set(Line.OPEN)
            member.start()
            member.send(signal.SIGCONT)
            return
        program = (self.workers if fault.target == "worker" else self.servers)[fault.number]
        if fault.target == "worker":
            self.lines[fault.number].set(Line.OPEN)
        program.send(signal.SIGCONT, family=True)
        program.start()

    def mend(self) -> None:
        """Undo everything."""
        self.trio.restore()
        for line in (*self.lines, self.line):
            line.set(Line.OPEN)
        for program in (*self.servers, *self.workers):
            program.send(signal.SIGCONT, family=True)
            program.start()

    def revive(self) -> None:
        """Start what has ended by itself, such as a server that found no primary when it began."""
        for program in (*self.servers, *self.workers):
            program.start()

    def effects(self) -> list[Effect]:
        """What attempts left outside."""
        lines = [line.split() for line in Path(self.means.effects).read_text().splitlines()]
        return [Effect(execution=execution, what=what, time=float(time)) for execution, what, time in lines]

    def logs(self) -> str:
        """The end of every log."""
        programs = [*self.servers, *self.workers]
        return "\n".join(f"--- {program.log.name}\n{program.tail()}" for program in programs)


def means(directory: Path) -> Means:
    """What the tasks run, made in a directory."""
    (directory / "act.sh").write_text(dedent(_SCRIPT))
    write_models(directory / "models", effect=_MODEL)
    effects = directory / "effects"
    effects.touch()
    return Means(script=str(directory / "act.sh"), model="effect", effects=str(effects))


@contextmanager
def world(directory: Path, with_means: Means) -> Iterator[World]:
    """A world in which all is well; everything in it is killed at the end."""
    with ExitStack() as stack:
        trio = stack.enter_context(replica_set(directory / "mongod"))
        lease = {"BANYAN_LEASES__LOST_AFTER": str(LEASE_SECONDS), "BANYAN_RESCUE__INTERVAL": "0.5"}
        settings = {**lease, "BANYAN_MODELS__PATH": "[]", "BANYAN_POSTING__CHECK": "off"}
        servers = [server(directory, f"server-{n}", trio.uri, DATABASE, **settings) for n in range(SERVERS)]
        for each in servers:
            stack.callback(each.send, signal.SIGKILL, family=True)
        servers[0].start()  # alone, for it makes the first tokens
        servers[0].wait_until_healthy()
        for each in servers[1:]:
            each.start()
        line = stack.enter_context(Proxy(*(("127.0.0.1", each.port) for each in servers)))
        made = World(directory, with_means, trio, servers, line)
        for number in range(WORKERS):
            _add_worker(made, number, stack)
        for each in servers:
            each.wait_until_healthy()
        yield made


def _add_worker(made: World, number: int, stack: ExitStack) -> None:
    """A worker that prefers one of the servers; one gives up soon, half of them share no disk, half have the model."""
    ways = made.servers[number % SERVERS :] + made.servers[: number % SERVERS]
    line = stack.enter_context(Proxy(*(("127.0.0.1", each.port) for each in ways)))
    settings = {
        "BANYAN_MODELS__PATH": f'["{made.directory / "models"}"]' if number % 2 else "[]",
        "BANYAN_FILES__SHARED": "true" if number < WORKERS // 2 else "false",
        "BANYAN_SERVER_LOST_AFTER": "4" if number == 0 else "600",
    }
    token, url = made.servers[0].token("worker"), f"http://127.0.0.1:{line.port}"
    program = worker(made.directory, f"worker-{number}", url, token, cores=2, **settings)
    stack.callback(program.send, signal.SIGKILL, family=True)
    program.start()
    made.lines.append(line)
    made.workers.append(program)
