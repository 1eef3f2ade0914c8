"""Definitions of lm-eval tasks, read without lm-eval: names, YAML with its includes, and the files they refer to.

lm-eval itself loads and scores the tasks. This module gives what must be known before: the identity of a result, and
what to refuse.
"""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hiplora.errors import UserError
from hiplora.tasks.files import sha256, tree_sha256

PREFIX = "lm_eval/"  # before the name of a task of lm-eval among those of benchmarks and files
# The line that names a task or group itself; a `tag:` may be followed by a list. Members of a group are indented.
NAMED = re.compile(r"^[\"']?(?:task|group)[\"']?:[ \t]*[\"']?([^\s\"'#\[]+)", re.MULTILINE)
TAGGED = re.compile(r"^[\"']?tag[\"']?:((?:[ \t]*[^\n#]+)|(?:[ \t]*\n[ \t]*-[^\n]+)+)", re.MULTILINE)
INCLUDED = re.compile(r"^[\"']?include[\"']?:[ \t]*[\"']?([^\s\"'#\[]+)", re.MULTILINE)
# Values of dataset_path that name a file format; any other value that is no local path names a repository on the Hub.
FORMATS = ("arrow", "audiofolder", "csv", "imagefolder", "json", "pandas", "parquet", "text", "webdataset", "xml")
WORD = re.compile(r"\w[\w.+-]*")


class Function(str):
    """A function that a YAML names by ``!function``: a dotted name, in a Python file beside the YAML or a package."""


@dataclass(frozen=True)
class Definition:
    """A task or group: its YAML merged with its includes; functions are replaced by name and digest of their file."""

    name: str
    path: Path
    config: Mapping[str, Any]

    @property
    def members(self) -> list[str]:
        """The names of a group's members; a group defined inside it counts by its own members. Empty for a task."""
        return [name for name, _ in self._listed if name != self.name]

    @property
    def named(self) -> list[str]:
        """Those of the members that are defined elsewhere."""
        return [name for name, inline in self._listed if name != self.name and inline is None]

    @property
    def inline(self) -> list[Definition]:
        """The definitions of those members that the group defines itself."""
        return [
            Definition(name, self.path, _included(inline, self.path, ()))
            for name, inline in self._listed
            if inline is not None
        ]

    @property
    def _listed(self) -> list[tuple[str, Mapping[str, Any] | None]]:
        return [*_members(self.config.get("task"))] if "group" in self.config else []

    def reads(self) -> dict[str, str]:
        """Its identity: digests of the merged YAML, with functions by their files, and of each data file.

        Paths do not enter, neither the YAML's nor those of data files.
        """
        data = dict(_data_files(self.config))
        asked = {**self.config, "dataset_kwargs": self._settings(), "dataset_path": self._dataset()}
        text = json.dumps(asked, sort_keys=True, default=str)
        own = {f"{PREFIX}{self.name}": hashlib.sha256(text.encode()).hexdigest()}
        return own | {
            f"{PREFIX}{self.name} ({part})": tree_sha256(path) if path.is_dir() else sha256(path)
            for part, path in data.items()
        }

    @property
    def on_hub(self) -> bool:
        """Whether its data are a repository on the Hub."""
        return _on_hub(self.config)

    def absent(self) -> str | None:
        """A local data file that the YAML names and that does not exist; None if there is none."""
        if self.on_hub:
            return None
        given = self.config.get("dataset_kwargs") or {}
        files = [path for key in ("data_files", "data_dir") for _, path in _named(key, given.get(key))]
        return next((path for path in files if "://" not in path and not Path(path).exists()), None)

    def _settings(self) -> dict[str, Any]:
        given = self.config.get("dataset_kwargs") or {}
        if _on_hub(self.config):
            return dict(given)
        return {key: value for key, value in given.items() if key not in ("data_files", "data_dir")} | {
            key: sorted(label for label, _ in _named(key, given[key]))
            for key in ("data_files", "data_dir")
            if key in given
        }

    def _dataset(self) -> Any:
        path = self.config.get("dataset_path")
        return "folder" if isinstance(path, str) and Path(path).exists() else path


def built_in() -> Path:
    """The folder of lm-eval's own tasks, found without importing lm-eval. Raises UserError if it is not installed."""
    spec = find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("evaluation.tasks needs lm-eval; type `pip install -c constraints.txt -e '.[suite]'`.")
    return Path(next(iter(spec.submodule_search_locations))) / "tasks"


def own_mark(name: str) -> dict[str, str]:
    """The identity of a task that comes with lm-eval: its name and lm-eval's version."""
    return {f"{PREFIX}{name}": f"lm-eval {version('lm_eval')}"}


@cache
def names(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Every task, group and tag below a folder → the YAML files that name it; read once per process."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.yaml")):
        text = _text(path)
        tagged = [text, *(_text(path.parent / include) for include in INCLUDED.findall(text))]
        tags = (word for each in tagged for line in TAGGED.findall(each) for word in WORD.findall(line))
        for name in dict.fromkeys((*NAMED.findall(text), *tags)):
            found.setdefault(name, []).append(path)
    return {name: tuple(paths) for name, paths in found.items()}


@cache
def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def definitions(name: str, folder: Path) -> list[Definition]:
    """The task or group of a name below a folder, or the tasks with that tag. Raises UserError if a YAML is broken."""
    read = [_read(path) for path in names(folder).get(name, ())]
    own = [each for each in read if each.name == name]
    return own[:1] or [each for each in read if name in _tags(each.config)]


def described(name: str, folder: Path) -> dict[str, str]:
    """The identity of a task, group or tag below a folder, from its definitions and those of its members.

    A name without a definition below the folder is lm-eval's own (:func:`own_mark`).
    """
    found: dict[str, str] = {}
    for each in definitions(name, folder):
        for own in (each, *each.inline):
            found |= own.reads()
        for member in each.named:
            found |= described(member, folder)
    return found or own_mark(name)


def replaced_members(name: str, folder: Path) -> dict[str, str]:
    """The identity of definitions below a folder that replace members of one of lm-eval's own groups or tags."""
    inner = all_definitions(name, [folder, built_in()])
    return {
        key: value for each in inner for own in definitions(each.name, folder) for key, value in own.reads().items()
    }


def all_definitions(name: str, folders: Sequence[Path]) -> list[Definition]:
    """The definitions of a name, in the first folder that has it, with those of the members of groups."""
    found = next((each for folder in folders if (each := definitions(name, folder))), [])
    inline = [inner for each in found for inner in each.inline]
    inner = [inner for each in found for member in each.named for inner in all_definitions(member, folders)]
    return [*found, *inline, *inner]


def _read(path: Path) -> Definition:
    config = _loaded(path, ())
    name = config.get("group", config.get("task"))
    return Definition(str(name), path, config)


def _members(listed: Any) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """The names in a group's list, and in the lists of groups inside it, each with its definition if that is there."""
    for member in [listed] if isinstance(listed, str) else listed or ():
        if isinstance(member, str):
            yield member, None
        elif isinstance(listing := member.get("task", member.get("group")), str):
            whole = any(key in member for key in ("dataset_path", "include", "class", "custom_dataset"))
            yield listing, member if whole else None
        else:
            yield from _members(listing)


def _tags(config: Mapping[str, Any]) -> Sequence[str]:
    tags = config.get("tag") or ()
    return (tags,) if isinstance(tags, str) else tags


def _loaded(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The YAML of a file merged over its includes, as lm-eval merges them. Raises UserError if it is broken."""
    import yaml

    if path in seen:
        raise UserError(f"{path} includes itself; remove that include.")
    try:
        config = yaml.load(path.read_text(), Loader=_loader())  # a safe loader with one more tag
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as YAML ({' '.join(str(error).split())}); repair it.") from None
    if not isinstance(config, dict):
        raise UserError(f"{path} is not a task; a task's YAML has keys such as task, dataset_path and output_type.")
    return _included(_plain(config, path), path, seen)


def _included(config: Mapping[str, Any], path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """A definition in a file merged over what it includes."""
    includes = config.get("include") or []
    merged: dict[str, Any] = {}
    for include in [includes] if isinstance(includes, str) else includes:
        merged |= _loaded(path.parent / include, (*seen, path))
    return merged | {key: value for key, value in config.items() if key != "include"}


@cache
def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML with lm-eval's tag for functions."""

    Loader.add_constructor("!function", lambda loader, node: Function(loader.construct_scalar(node)))
    return Loader


def _plain(value: Any, path: Path) -> Any:
    """A YAML's content with each function as its name and, if its file is beside the YAML, the file's digest."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, path) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, path) for inner in value]
    if isinstance(value, Function):
        module, _, name = value.rpartition(".")
        file = path.parent / f"{module.replace('.', '/')}.py"
        return [name, sha256(file)] if file.is_file() else str(value)
    return value


def _on_hub(config: Mapping[str, Any]) -> bool:
    """Whether the data are a repository on the Hub; file names are then relative to it."""
    path = config.get("dataset_path")
    return isinstance(path, str) and path not in FORMATS and not Path(path).exists()


def _data_files(config: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """Local files and folders that a task reads, each with its split; data named by an address is left out.

    Relative paths start at the working directory, as in lm-eval.
    """
    if _on_hub(config):
        return
    given = config.get("dataset_kwargs") or {}
    for key in ("data_files", "data_dir"):
        yield from ((label, Path(path)) for label, path in _named(key, given.get(key)) if Path(path).exists())
    dataset = config.get("dataset_path")
    if isinstance(dataset, str) and Path(dataset).exists():
        yield "folder", Path(dataset)


def _named(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """(Split, path) pairs of ``data_files`` or ``data_dir``; a split with several files numbers them."""
    if value is None:
        return
    splits = value if isinstance(value, Mapping) else {"train" if key == "data_files" else key: value}
    for split, files in splits.items():
        each = [files] if isinstance(files, str) else list(files)
        paths = [path for name in each for path in (sorted(glob.glob(name)) or [name])]
        for number, path in enumerate(paths, start=1):
            yield (split if len(paths) == 1 else f"{split} {number}"), path
