"""The benchmarks: what each is trained on, how it is asked and scored. One file per benchmark."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from hiplora.errors import UserError

if TYPE_CHECKING:
    from hiplora.tasks.base import Task

TASKS: dict[str, str] = {
    "mmlu": "hiplora.tasks.mmlu:MMLU",
    "scienceqa": "hiplora.tasks.scienceqa:ScienceQA",
    "gsm8k": "hiplora.tasks.gsm8k:GSM8K",
    "code": "hiplora.tasks.code:Code",
    "custom": "hiplora.tasks.custom:Custom",
}
# What every run is scored on, merges and forgets: the paper's four, whatever else TASKS holds.
ORDER = ("mmlu", "scienceqa", "gsm8k", "code")


def task_class(name: str) -> type[Task]:
    """Class of a task.

    Raises:
        UserError: no task of this name.
    """
    if name not in TASKS:
        raise UserError(f"task={name} is not known; choose one of {', '.join(TASKS)}.")
    module, attribute = TASKS[name].split(":")
    return getattr(import_module(module), attribute)


def primary(name: str) -> str:
    """The headline score of a benchmark: the one that Retain, MergeFail and tables go by."""
    return task_class(name).scores[0]
