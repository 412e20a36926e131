"""Tasks: data, splits, metric."""

from .task import Split, Task, TaskData, draw_of, make_task

__all__ = ["Split", "Task", "TaskData", "draw_of", "make_task"]
