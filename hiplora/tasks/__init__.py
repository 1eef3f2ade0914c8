"""The benchmarks, one file each: training corpus, prompts and scoring."""

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
# The paper's four benchmarks: every run is scored on them, merges draw from them, and Retain counts them.
ORDER = ("mmlu", "scienceqa", "gsm8k", "code")


def task_class(name: str) -> type[Task]:
    """The class of a task; its fields are its options.

    Raises:
        UserError: there is no task of this name.
    """
    if name not in TASKS:
        raise UserError(f"task={name} is not known; choose one of {', '.join(TASKS)}.")
    module, attribute = TASKS[name].split(":")
    return getattr(import_module(module), attribute)


def primary(name: str) -> str:
    """The headline score of a benchmark, which Retain, MergeFail and tables use."""
    return task_class(name).scores[0]
