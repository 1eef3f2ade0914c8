"""Data flows one way: what may import what, and what may load torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "hiplora"

# A part may import itself and what stands at a lower level; the leaves import nothing of ours.
LEVELS = {
    "errors": 0, "updates": 0, "stats": 0,
    "config": 1, "disk": 1, "environment": 1, "hub": 1, "mini": 2, "records": 2,
    "tracking": 2, "spectral": 2, "models": 2, "merging": 3,
    "tuner": 3,
    "tasks": 4, "training": 4, "methods": 5, "evaluation": 5,
    "compose": 6, "pipelines": 6, "report": 7, "scheduler": 7,
    "sweep": 8, "run": 9, "reproduce": 9,
}  # fmt: skip
LEAVES = ("errors", "updates", "stats")
LIGHT = (
    "hiplora", "hiplora.run", "hiplora.reproduce", "hiplora.scheduler", "hiplora.pipelines.single",
    "hiplora.methods.hip", "hiplora.tasks.gsm8k", "hiplora.report.terminal", "hiplora.stats",
    "hiplora.tracking",
)  # fmt: skip
HEAVY = ("torch", "transformers", "peft", "datasets", "lm_eval", "wandb")


def part(module: str) -> str:
    return ([*module.split("."), ""])[1]


def ours(path: Path) -> set[str]:
    """Parts of the package that a file imports when it is loaded or later."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("hiplora"):
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "hiplora" else [node.module]
            )
            found.update(part(name) for name in names)
        if isinstance(node, ast.Import):
            found.update(part(alias.name) for alias in node.names if alias.name.startswith("hiplora"))
    return {name for name in found if name in LEVELS}


def typing_only(path: Path) -> set[str]:
    """Parts imported for annotations alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for inner in ast.walk(node):
                if isinstance(inner, ast.ImportFrom) and inner.module and inner.module.startswith("hiplora"):
                    found.add(part(inner.module))
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if name == "__init__":
        return
    assert name in LEVELS, f"{name} is not placed in LEVELS; decide what may import it"
    needed = ours(path) - {name}
    if name in LEAVES:
        assert not needed - typing_only(path)
    level = max(LEVELS.values()) if path.name == "__main__.py" else LEVELS[name]  # a command, which nothing imports
    upward = {other for other in needed if LEVELS[other] > level} - typing_only(path)
    assert not upward, f"{name} imports {upward}, which stand above it"


def test_commands_are_imported_by_nothing() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert "__main__ import" not in path.read_text(), f"{path} imports a command; move what it needs to a module"


def test_plans_and_reports_never_load_torch() -> None:
    code = f"import sys\nfor name in {LIGHT!r}: __import__(name)\n"
    code += f"print([name for name in {HEAVY!r} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_no_branch_on_the_name_of_a_method() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare) and ast.unparse(node.left).endswith("method.name"):
                pytest.fail(f"{path}:{node.lineno} asks for the method's name; add a hook to Method instead")
