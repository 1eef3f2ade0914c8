"""What is kept of a document that lm-eval has scored: the sample for the record, and the item's text beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hiplora.evaluation.definitions import PREFIX
from hiplora.evaluation.item_texts import ItemText

MUTUAL = "acc_mutual_info"  # a metric for which options are scored without their prompt, too


def sample_of(task: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The sample of a document: the model's outputs and scores, never the document's text."""
    filtered = "" if entry["filter"] == "none" else f",{entry['filter']}"
    values = {name: finite(entry[name]) for name in entry["metrics"]}
    kept = {name: value for name, value in values.items() if value is not None}
    outputs = _of_options([answer for answers in entry["resps"] for answer in answers], entry)
    given: dict[str, Any]
    if isinstance(outputs[0], str):
        read = entry["filtered_resps"][0]
        given = {"text": outputs[0]} | ({"read": read} if isinstance(read, str) and read != outputs[0] else {})
    else:
        given = {"log_probs": [_log_prob(each) for each in outputs]}
    hashes = {key: entry[key][:16] for key in ("doc_hash", "prompt_hash")}
    return {"benchmark": f"{PREFIX}{task}", "id": f"{entry['doc_id']}{filtered}", **given, **kept, **hashes}


def item_text(task: Any, entry: Mapping[str, Any]) -> ItemText:
    """The text of a document's item, from its requests."""
    arguments, target = _of_options(entry["arguments"], entry), entry["target"]
    first = str(arguments[0][0])
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        return ItemText(prompt=first)
    if task.OUTPUT_TYPE == "loglikelihood":
        return ItemText(prompt=first, right=str(arguments[0][1]))
    if task.OUTPUT_TYPE != "multiple_choice":
        return ItemText(prompt=first, right=_right(target, ()))
    contexts, ends = zip(*((str(context), str(end)) for context, end in arguments), strict=True)
    if getattr(task, "multiple_input", False):  # the options are in the contexts, one continuation follows them all
        gold = task.doc_to_text(entry["doc"])
        return ItemText(prompt=f"[…]{ends[0]}", right=_right(gold, contexts), options=contexts)
    return ItemText(prompt=first, right=_right(target, ends), options=ends)


def _of_options(requests: list[Any], entry: Mapping[str, Any]) -> list[Any]:
    """The requests of a document, or their outputs, without those of options alone, which come last."""
    return requests[: len(requests) // 2] if MUTUAL in entry["metrics"] else requests


def _right(target: Any, options: Sequence[str]) -> str | None:
    """A right answer, or several, as text; a number is that of an option."""
    several = target if isinstance(target, list | tuple) else [target]
    found = [options[each] if isinstance(each, int) and 0 <= each < len(options) else str(each) for each in several]
    return " | ".join(found) or None


def _log_prob(answer: Any) -> float:
    """Log-probability of a continuation or of a whole text, in nats."""
    return round(answer[0] if isinstance(answer, tuple) else answer, 4)


def finite(value: Any) -> float | None:
    """A number as a float; None for anything else, and for nan and infinity."""
    if isinstance(value, bool | int | float | np.number) and math.isfinite(value):
        return float(value)
    return None
