"""The HyperQueue that is measured, as a process: `python -m bench.peers.hyperqueue_cluster DIRECTORY CORES`."""

import signal
import sys
from pathlib import Path

READY = "ready"


def main(directory: Path, cores: int) -> None:
    """A server with its files in `directory` and one worker, until SIGTERM."""
    from hyperqueue import LocalCluster
    from hyperqueue.cluster import WorkerConfig

    with LocalCluster(str(directory), WorkerConfig(cores=cores)):
        (directory / READY).touch()
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main(Path(sys.argv[1]), int(sys.argv[2]))
