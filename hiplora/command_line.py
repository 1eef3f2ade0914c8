"""A user's overrides rewritten for Hydra."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hiplora import conf_dir
from hiplora.disk import FOLDERS, check_folder, typed_path
from hiplora.errors import UserError

PATHS = (  # fields that hold a path, in which ~ is the home folder
    *FOLDERS,
    "model.path",
    "evaluation.include_path",
    "data.root",
    "edits.file",
    "pipeline.adapter",
    "task.file",
    "task.validation_file",
    "task.test_file",
)
SHORT = {
    "adapter": "pipeline.adapter",
    "adapter.revision": "pipeline.revision",
}  # short names of fields of pipeline=evaluate
SWEEPS = re.compile(r"((?:(?:choice|shuffle|sort)\()+)(.*?)(\)+)")  # Hydra's functions of options, around the options
NUMBERS = ("range(", "interval(", "int(", "float(")  # Hydra's functions of numbers, which no option of a group is
PLAIN = re.compile(r"[\w./+:@%*?|-]*", re.ASCII)  # what Hydra takes without quotes


def quoted_options(overrides: Sequence[str]) -> list[str]:
    """A user's overrides rewritten for Hydra: numeric options of groups quoted, ~ replaced, short names spelt out.

    Without quotes Hydra would read ``seed=42`` as a number and not as an option of the group ``seed``.

    Raises:
        UserError: a seed that is not an option of the group (the sentence says how to choose any other seed), a value
            that names no option, or a short name without ``pipeline=evaluate``.
    """
    groups = {path.name for path in conf_dir.CONF_DIR.iterdir() if path.is_dir()}
    overrides = _in_pipeline(overrides)
    for text in overrides:
        _check_choice(text, groups)
    at_home = [_with_home(text) if text.partition("=")[0] in PATHS else text for text in overrides]
    return [_quoted(text) if text.partition("=")[0] in groups else text for text in at_home]


def _in_pipeline(overrides: Sequence[str]) -> list[str]:
    """The overrides with short names spelt out. Raises UserError where the pipeline has no such field."""
    given = [text.partition("=")[0] for text in overrides]
    short = next((field for field in given if field in SHORT), None)
    if short is not None and not any(text.startswith("pipeline=") and "evaluate" in text for text in overrides):
        raise UserError(f"{short}=… is read by pipeline=evaluate alone; type that beside it, or leave it out.")
    return [SHORT.get(field, field) + text.removeprefix(field) for field, text in zip(given, overrides, strict=True)]


def _check_choice(override: str, groups: set[str]) -> None:
    """Refuse a value that names no option of a group, for which Hydra's own error is unreadable. Raises UserError."""
    group, sign, given = override.lstrip("+").partition("=")
    if not sign or not (group in groups or group == "hydra" or "/" in group):
        return
    for value in given.split(","):
        if value.strip() in ("", "null") or value.strip()[0] in "[{":
            known = sorted(path.stem for path in (conf_dir.CONF_DIR / group).glob("*.yaml"))
            choose = f"choose one of {', '.join(known)}" if known else "name one"
            raise UserError(f"{group}={given} chooses no option; leave it out, or {choose}.")


def _with_home(override: str) -> str:
    """An override of a path with its ~ replaced: Hydra would use it as it is, and shells do not replace it there."""
    field, _, value = override.partition("=")

    def at_home(found: re.Match[str]) -> str:
        check_folder(field, found[0])
        path = str(typed_path(found[0]))
        return path if found.string[: found.start()].endswith(("'", '"')) else hydra_text(path)

    return f"{field}=" + re.sub(r"(?<![^\[,'\"])~[^,\]'\"]*", at_home, value)  # in a list, every value


def hydra_text(text: str) -> str:
    """A text as Hydra reads it back: in quotes where it would otherwise be read as something else."""
    if PLAIN.fullmatch(text):
        return text
    inside = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
    return f"'{inside}'"


def _quoted(override: str) -> str:
    group, _, given = override.partition("=")
    if given.startswith(NUMBERS):
        raise UserError(f"{group}={given} gives numbers and no options; type the options, e.g. {group}=A,B.")
    function = SWEEPS.fullmatch(given)
    before, inside, after = function.groups() if function else ("", given, "")
    values = [value.strip(" '\"") for value in inside.split(",")]
    options = {path.stem for path in (conf_dir.CONF_DIR / "seed").glob("*.yaml")}
    for value in values:
        if group == "seed" and value not in options and value.lstrip("-").isdigit():
            raise UserError(
                f"seed={value} is not one of the paper's seeds 42, 100, 2024; type seed=custom seed.value={value}."
            )
    number = re.compile(r"-?[\d.]+")
    quotes = ("\"'", "'\"") if function else ("'", "'")  # a function of Hydra takes one pair off
    listed = ",".join(value.join(quotes) if number.fullmatch(value) else value for value in values)
    return f"{group}={before}{listed}{after}"
