"""Running the text of a program as a module of its own, as Python runs a file."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def new_module(name: str) -> dict[str, Any]:
    """The namespace of a new module that is found under its name: dataclasses, pickle and typing look there."""
    module = type(sys)(name)
    sys.modules[name] = module
    return module.__dict__


def run(text: str, file: str, namespace: dict[str, Any]) -> None:
    """Execute the text in the namespace; tracebacks call it ``file``."""
    # Else it would inherit this file's future import, and every annotation in it would be a string.
    exec(compile(text, file, "exec", dont_inherit=True), namespace)
