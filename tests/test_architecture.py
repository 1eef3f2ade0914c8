"""Data flows one way: what may import what, and what may load torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "hiplora"

# A part may import itself and what stands at a lower level, nothing beside it; leaves import nothing but errors.
LEVELS = {
    "errors": 0, "lazy": 0, "suite": 0,
    "config": 1, "updates": 1, "stats": 1, "matching": 1, "disk": 1, "environment": 1,
    "conf_dir": 1, "parts": 2, "digests": 2, "command_line": 2, "hydra_compose": 3,
    "selection": 2, "hub": 2, "tokens": 2, "tracking": 2, "mini": 2,
    "spectral": 3, "editset": 3, "tuner": 4, "packing": 4, "models": 4, "adapters": 5,
    "merging": 6, "tasks": 6, "training": 6, "methods": 7, "evaluation": 7,
    "stages": 8, "pipelines": 9, "compose": 10, "report": 11, "sweep": 11,
    "run": 12, "reproduce": 12, "runs": 12, "__main__": 13,
}  # fmt: skip
LIBRARY = ("errors", "lazy", "config", "updates", "disk", "spectral", "tuner", "adapters", "merging")  # pip install .
PACKAGES = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file())
COMMANDS = ("__main__", "hiplora.tuner.export")  # entries, which may import everything and which nothing imports
LEAVES = ("errors", "lazy", "suite", "config", "updates", "stats", "matching", "disk", "environment", "conf_dir")
LIGHT = (
    "hiplora", "hiplora.run", "hiplora.reproduce", "hiplora.stages.make", "hiplora.pipelines.single",
    "hiplora.methods.hip", "hiplora.tasks.gsm8k", "hiplora.report.terminal", "hiplora.stats",
    "hiplora.runs", "hiplora.report.page.build",
    "hiplora.tracking", "hiplora.spectral", "hiplora.tuner", "hiplora.tuner.options", "hiplora.adapters.files",
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


def module(path: Path) -> str:
    """The dotted name of a file; a package's own for its ``__init__.py``."""
    parts = ["hiplora", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module(path): path for path in PACKAGE.rglob("*.py")}


def files_imported(path: Path) -> set[str]:
    """Modules of the package that a file imports anywhere in it, for annotations too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(name if name in FILES else node.module for name in names)
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return (found & FILES.keys()) - {module(path)}


def is_command(name: str) -> bool:
    return name.rpartition(".")[2] in COMMANDS or name in COMMANDS


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
        assert not needed - {"errors"} - typing_only(path)
    level = max(LEVELS.values()) + 1 if is_command(module(path)) else LEVELS[name]
    upward = {other for other in needed if LEVELS[other] >= level} - typing_only(path)
    assert not upward, f"{name} imports {upward}, which stand above or beside it"


def test_commands_are_imported_by_nothing() -> None:
    for path in PACKAGE.rglob("*.py"):
        commands = {name for name in files_imported(path) if is_command(name)}
        assert not commands, f"{path} imports {commands}; move what it needs to a module"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circle_of_files_inside_a_package(package: str) -> None:
    inside = {name for name in FILES if f"{name}.".startswith(f"hiplora.{package}.")}
    left = {name: files_imported(FILES[name]) & inside for name in inside}
    while left:
        bottom = {name for name, needed in left.items() if not needed & left.keys()}
        assert bottom, f"these files import each other in a circle, or import one that does: {sorted(left)}"
        left = {name: needed for name, needed in left.items() if name not in bottom}


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
