"""`from simsvc.tasks import Task_spec`, for models that name the type of their first argument."""

from banyan.models.task_spec import Task_spec

__all__ = ["Task_spec"]
