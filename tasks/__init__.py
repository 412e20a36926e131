"""Tasks: data, splits, metric."""

from .task import Split, Task, TaskData

__all__ = ["Split", "Task", "TaskData"]
