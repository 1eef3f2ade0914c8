"""lm-eval's own tasks on the model in memory: loaded and scored by lm-eval, as by its own command.

The model answers as lm-eval's ``HFLM`` does: a prompt and its continuation are encoded as one text, long texts are
scored in rolling windows, and generated text is cut the same way. Requests are batched and computed like all of ours.
"""

from __future__ import annotations

import os
import random
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lm_eval.api.task import Task
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.evaluator import evaluate as lm_evaluate
from lm_eval.tasks import TaskManager

from hiplora.errors import UserError
from hiplora.evaluation.definitions import Definition
from hiplora.evaluation.engine import quiet
from hiplora.evaluation.harness_items import MUTUAL, finite, item_text, sample_of
from hiplora.evaluation.harness_lm import HarnessLM, check_generation, settings_of
from hiplora.evaluation.item_texts import Texts, key
from hiplora.evaluation.lm_tasks import LmScore, LmTasks, check_counted
from hiplora.packing.decoder import evaluating

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from hiplora.evaluation.options import Evaluation
    from hiplora.parts import Parts

BOOTSTRAP = 1000  # resamples for the standard error of a score that is not a mean, such as a perplexity
UNSAFE = "runs programs that a model wrote, without a sandbox; the benchmark code runs them in one, so leave it out"
SEEN = "shows pictures or plays sound, which the backbone cannot take; leave it out"


def check(asked: LmTasks, *, positions: int | None, begins: bool | None = None) -> None:
    """Refuse, before anything is computed, tasks that could not be scored. Raises UserError.

    Args:
        positions: the backbone's longest input in tokens; None if not known.
        begins: whether its tokenizer has a token to put before a text; None if not known.
    """
    _checked(asked, positions, begins, tuple(asked.reads().items()))


@cache
def _checked(asked: LmTasks, positions: int | None, begins: bool | None, reads: tuple[tuple[str, str], ...]) -> None:
    """As :func:`check`; cached, so that the same tasks are loaded once for all models."""
    with _as_lm_eval():
        loaded = load(asked)
    for name, task in loaded["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False):
            raise UserError(f"evaluation.tasks: {name} {UNSAFE}.")
        if getattr(task, "MULTIMODAL", False):
            raise UserError(f"evaluation.tasks: {name} {SEEN}.")
        if begins is False and _begins_with_nothing(task):
            raise UserError(
                f"evaluation.tasks: {name} scores a text from its first token on, and the backbone's tokenizer has "
                "neither a beginning nor an end token to put before it; leave the task out."
            )
        if task.OUTPUT_TYPE == "generate_until":
            settings = settings_of(task.config.generation_kwargs or {}, name=name)
            if positions is not None and settings["max_gen_toks"] >= positions:
                raise UserError(
                    f"evaluation.tasks: {name} writes {settings['max_gen_toks']} tokens, which leaves no position for "
                    f"a prompt: the backbone has {positions}; lower max_gen_toks in a copy of its YAML."
                )
    for each in asked.counted():
        check_counted(*_filtered(loaded, each.name), each)


def _begins_with_nothing(task: Any) -> bool:
    """Whether a text is scored without a prompt, so that a special token must come before it."""
    if task.OUTPUT_TYPE == "loglikelihood_rolling" or MUTUAL in task.higher_is_better():
        return True
    asks = task.config.doc_to_text != "" or task.config.description or task.config.num_fewshot
    return task.OUTPUT_TYPE in ("multiple_choice", "loglikelihood") and not asks


def load(asked: LmTasks) -> dict[str, Any]:
    """Tasks and groups as lm-eval's ``evaluate`` takes them.

    Raises:
        UserError: a name is unknown, a data set is out of reach, or lm-eval rejects a definition.
    """
    defined = asked.defined()
    folders = dict.fromkeys(each.path.parent for found in defined.values() for each in found)
    for found in defined.values():
        for each in found:
            _check_defined(each)
    manager = TaskManager(include_path=[*folders, *filter(None, [asked.folder])], include_defaults=False)
    loaded: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
    for name, found in defined.items():
        part = _loaded(manager, name, found)
        if twice := next((each for each in part["tasks"] if each in loaded["tasks"]), None):
            raise UserError(f"evaluation.tasks: {twice} is in two of the names; name it once.")
        for kind in loaded:
            loaded[kind] |= part.get(kind, {})
    for task in loaded["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    return loaded


def _check_defined(each: Definition) -> None:
    """Refuse a task for what its definition alone shows. Raises UserError."""
    if each.config.get("unsafe_code"):
        raise UserError(f"evaluation.tasks: {each.name} {UNSAFE}.")
    if each.config.get("doc_to_image") or each.config.get("doc_to_audio"):
        raise UserError(f"evaluation.tasks: {each.name} {SEEN}.")
    if (absent := each.absent()) is not None:
        raise UserError(
            f"{each.path.name} names the data {absent}, which is not there; lm-eval takes such a path from the folder "
            "in which the command runs, so give a whole path or run it from there."
        )


def _loaded(manager: TaskManager, name: str, found: Sequence[Definition]) -> Mapping[str, Any]:
    try:
        return manager.load([name])
    except Exception as error:  # errors of lm-eval, the Hub and a task's own functions have no common base
        reads = dict.fromkeys(str(each.config["dataset_path"]) for each in found if each.on_hub)
        data = f" It reads {', '.join([*reads][:3])}: if that is on the Hub, connect to it once." if reads else ""
        raise UserError(f"evaluation.tasks: lm-eval could not load {name} ({_reason(error)}).{data}") from error


def score(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    *,
    asked: LmTasks,
    evaluation: Evaluation,
    progress: bool = True,
    parts: Parts | None = None,
) -> tuple[dict[str, LmScore], list[dict[str, Any]], Texts]:
    """Scores by task and group, a sample with the model's answers for each document, and the documents' text.

    Global random states are set as lm-eval sets them, because a task may draw from them, and then restored.

    Raises:
        UserError: a task generates text, and the model's generation settings would change what lm-eval generates.
    """
    with evaluating(model), _as_lm_eval():
        loaded = load(asked)
        written = [name for name, task in loaded["tasks"].items() if task.OUTPUT_TYPE == "generate_until"]
        if written:
            check_generation(model, name=written[0])
        lm = HarnessLM(
            model,
            tokenizer,
            batch_tokens=evaluation.batch_tokens,
            seed=evaluation.seed,
            progress=progress,
            parts=parts,
        )
        results = _evaluated(lm, loaded, evaluation.limit)
    inside = _inside(loaded, results)
    shown = [*loaded["tasks"], *(name for name in loaded["groups"] if _scored(name, results))]
    scores = {name: _score(name, loaded, results, inside.get(name)) for name in shown}
    entries = [(name, each) for name in loaded["tasks"] for each in results["samples"][name]]
    samples = [sample_of(name, each) for name, each in entries]
    texts = {
        key(sample["benchmark"], sample): item_text(loaded["tasks"][name], each)
        for (name, each), sample in zip(entries, samples, strict=True)
    }
    return scores, samples, texts


def _evaluated(lm: HarnessLM, loaded: dict[str, Any], limit: int | None) -> Any:
    """What lm-eval returns. Raises UserError if a task's definition or functions fail in it."""
    try:
        return lm_evaluate(lm=lm, task_dict=loaded, limit=limit, bootstrap_iters=BOOTSTRAP)
    except Exception as error:  # errors of lm-eval and of a task's own functions have no common base
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][1:]
        ours = any(str(frame.f_globals.get("__name__")).startswith("hiplora") for frame in frames)
        if ours or isinstance(error, UserError | MemoryError):
            raise  # of the model, not of a task
        held = [value for frame in frames for value in frame.f_locals.values()]
        tasks = [each for value in held for each in (value, getattr(value, "task", None)) if isinstance(each, Task)]
        of = f" on {tasks[-1].config.task}" if tasks else ""
        raise UserError(
            f"evaluation.tasks: lm-eval failed{of} ({_reason(error)}); correct its definition or leave it out."
        ) from error


def _reason(error: Exception) -> str:
    """An error of another library on one line, with its type."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200].rstrip(": .")


def _score(name: str, loaded: Mapping[str, Any], results: Mapping[str, Any], group: str | None) -> LmScore:
    found = results["results"][name]
    order, better = _metrics(loaded, name)
    numbers = {key.removesuffix(",none"): value for key, value in found.items() if "," in key}
    scores = [key for key in numbers if not key.partition(",")[0].endswith("_stderr")]
    scores.sort(key=lambda key: [*order, key.partition(",")[0]].index(key.partition(",")[0]))
    errors = {key: finite(numbers.get(_error_of(key))) for key in scores}
    return LmScore(
        metrics={key: finite(numbers[key]) for key in scores},
        stderr={key: error for key, error in errors.items() if error is not None},
        better=dict(better),
        n=found["sample_len"],
        shots=results["n-shot"].get(name),
        version=str(results["versions"].get(name)),
        group=group,
    )


def _error_of(key: str) -> str:
    """The key of a metric's standard error."""
    metric, comma, filtered = key.partition(",")
    return f"{metric}_stderr{comma}{filtered}"


def _metrics(loaded: Mapping[str, Any], name: str) -> tuple[list[str], dict[str, bool | None]]:
    """Metrics of a task or group in its own order, and for each whether higher is better (None: unknown)."""
    if name in loaded["tasks"]:
        better = loaded["tasks"][name].higher_is_better()
        return [*better], dict(better)
    tasks = loaded["groups"][name].get_all_tasks() if name in loaded["groups"] else []
    better = {metric: higher for task in tasks for metric, higher in task.higher_is_better().items()}
    listed = [each.metric for each in loaded["groups"][name].aggregate_metric_list or []] if tasks else []
    return listed, {metric: better.get(metric) for metric in listed}


def _filtered(loaded: Mapping[str, Any], name: str) -> tuple[list[str], dict[str, bool | None]]:
    """As :func:`_metrics`, with the names that scores have: one for each of a task's named filters."""
    order, better = _metrics(loaded, name)
    if name not in loaded["tasks"]:
        return order, better
    filters = [each.name for each in getattr(loaded["tasks"][name], "_filters", [])] or ["none"]
    return [metric if each == "none" else f"{metric},{each}" for metric in order for each in filters], better


def _scored(name: str, results: Mapping[str, Any]) -> bool:
    """Whether a task or group has a score of its own."""
    return any("," in key for key in results["results"].get(name, {}))


def _inside(loaded: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, str]:
    """Task or group → the outermost group with scores of its own that contains it."""
    found: dict[str, str] = {}
    for name, group in loaded["groups"].items():
        members = [task.task_name for task in group.get_all_tasks()] + [each.name for each in group.get_all_groups()]
        if _scored(name, results) and name not in found:
            found |= dict.fromkeys(members, name)
    return found


@contextmanager
def _as_lm_eval() -> Iterator[None]:
    """The environment of lm-eval's command: seeded random states, output to stderr; restored when the block ends."""
    states = random.getstate(), np.random.get_state()
    alone = os.environ.get("DISABLE_MULTIPROC")
    os.environ["DISABLE_MULTIPROC"] = "1"  # else lm-eval forks this process, with the model, to resample
    random.seed(DEFAULT_RANDOM_SEED)
    np.random.seed(DEFAULT_OTHER_SEED)
    try:
        with quiet(), torch.random.fork_rng(), redirect_stdout(sys.stderr):
            torch.manual_seed(DEFAULT_OTHER_SEED)
            yield
    finally:
        os.environ.pop("DISABLE_MULTIPROC") if alone is None else os.environ.update(DISABLE_MULTIPROC=alone)
        random.setstate(states[0])
        np.random.set_state(states[1])
