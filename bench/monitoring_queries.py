"""The filters that docs/guides/monitoring.md recommends for watching a queue, however many tasks it has."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NEWEST_FIRST = "-_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoringQuery:
    """A filter on a resource as it stands in the documentation: TASK, SWEEP and DATE in it stand for what one has."""

    resource: str
    text: str
    sort: str = NEWEST_FIRST

    def known(self, values: Mapping[str, str]) -> dict[str, Any]:
        """The filter with these values in their places."""
        text = self.text
        for name, value in values.items():
            text = text.replace(f'"{name}"', json.dumps(value))
        return dict(json.loads(text))


RECOMMENDED = (
    MonitoringQuery(resource="tasks", text="{}"),
    MonitoringQuery(resource="tasks", text='{"state": "running"}'),
    MonitoringQuery(resource="tasks", text='{"state": "running", "queue": "night"}'),
    MonitoringQuery(resource="tasks", text='{"state": "available", "queue": "night"}'),
    MonitoringQuery(resource="tasks", text='{"state": "terminated", "exit_status": {"$ne": "success"}}'),
    MonitoringQuery(resource="tasks", text='{"state": "terminated", "exit_status": "out of memory"}'),
    MonitoringQuery(resource="tasks", text='{"name": "mesh"}'),
    MonitoringQuery(resource="tasks", text='{"tags": "wing", "state": "running"}'),
    MonitoringQuery(resource="tasks", text='{"sweep": "SWEEP", "state": "running"}'),
    MonitoringQuery(resource="tasks", text='{"owner": "user", "state": "running"}'),
    MonitoringQuery(resource="execution_history", text='{"task": "TASK"}'),
    MonitoringQuery(resource="execution_history", text='{"time_terminated": {"$gt": "DATE"}}', sort="-time_terminated"),
    MonitoringQuery(resource="memory_usage", text='{"task": "TASK"}', sort="time"),
    MonitoringQuery(resource="continuations", text='{"parent": "TASK"}'),
    MonitoringQuery(resource="workers", text='{"state": "active"}'),
)
