"""The form of every resource: Cerberus schemas that validate, define `where`, and become the OpenAPI document.

A stored field that is in no schema is internal: it can be neither read, filtered, sorted nor projected.
"""

from banyan.api.schema.attempts import EXECUTION, MEMORY_SAMPLE
from banyan.api.schema.kinds import Rules, identifier
from banyan.api.schema.sweeps import SWEEP
from banyan.api.schema.tasks import CONTINUATION, TASK
from banyan.api.schema.workers import QUEUE, USER, WORKER

RESOURCES: dict[str, dict[str, Rules]] = {
    "tasks": TASK,
    "continuations": CONTINUATION,
    "execution_history": EXECUTION,
    "memory_usage": MEMORY_SAMPLE,
    "sweeps": SWEEP,
    "workers": WORKER,
    "queues": QUEUE,
    "users": USER,
}
"""The schema of each resource, by its name in URLs."""

for _schema in RESOURCES.values():
    _schema.setdefault("_id", identifier(readonly=True))
