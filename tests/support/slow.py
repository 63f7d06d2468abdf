"""Tests that take long: they start servers, workers and databases of their own, wait for leases, or try at random."""

DIRECTORIES = ("tests/acceptance/", "tests/faults/")
FILES = frozenset(
    f"tests/integration/test_{name}.py"
    for name in (
        "api_fuzz api_matrix backup bench_scale embedded model_checks model_schedulers private "
        "queue_machine queue_races renewed_tokens server server_bodies server_hostile server_settings "
        "server_strangers tls upgrade user_races worker_daemon worker_gpus worker_groups worker_limits "
        "worker_model_ends worker_model_threads worker_models worker_run_as worker_signals "
        "worker_supervisor worker_trust"
    ).split()
)
FILES |= {"tests/models/test_fmi.py", "tests/unit/test_compiled.py", "tests/unit/test_graph_machine.py"}


def is_slow(nodeid: str) -> bool:
    """True if a test is slow by its place; others have the mark `slow` where they stand."""
    return nodeid.startswith(DIRECTORIES) or nodeid.partition("::")[0] in FILES
