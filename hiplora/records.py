"""Where results live and how they are written: the only module that knows paths under ``results/`` and ``outputs/``.

A record is one JSON file; the per-sample predictions behind its numbers lie beside it, compressed. Both are
written under a temporary name and renamed, the record last: a record that exists is complete.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hiplora.disk import read_json, write_atomically, write_json
from hiplora.errors import UserError

SCHEMA = 1


def records_dir(results_dir: str | Path, pipeline: str) -> Path:
    """``results/<data>/records/<pipeline>``; ``results_dir`` is ``results/<data>``."""
    return Path(results_dir) / "records" / pipeline


def adapter_dir(outputs_dir: str | Path, train_id: str) -> Path:
    """Folder of one trained adapter; complete if it exists."""
    return Path(outputs_dir) / "adapters" / train_id


def checkpoint_dir(outputs_dir: str | Path, train_id: str) -> Path:
    """Folder of the resumable checkpoints of one training; removed when its adapter is complete."""
    return Path(outputs_dir) / "checkpoints" / train_id


def partial_path(outputs_dir: str | Path, key: str) -> Path:
    """One finished part of a long run, found again by what determines it."""
    return Path(outputs_dir) / "partial" / f"{key}.json"


def answers_dir(outputs_dir: str | Path, identity: str) -> Path:
    """Folder of the answers of an evaluation that is under way; removed when its record is written."""
    return Path(outputs_dir) / "answers" / identity


def wandb_parent(outputs_dir: str | Path) -> Path:
    """Folder given to W&B, which makes its own ``wandb`` inside; nothing of ours ever removes that."""
    return Path(outputs_dir)


def lock_path(outputs_dir: str | Path, identity: str) -> Path:
    """What two processes that want the same record agree on."""
    return Path(outputs_dir) / "locks" / identity


def stem(labels: Mapping[str, Any], identity: str) -> str:
    """File name of a record without its ending: what a person looks for, then the identity."""
    words = [str(labels[key]) for key in ("method", "merge", "calibration", "task") if labels.get(key)]
    seed = [f"s{labels['seed']}"] if labels.get("seed") is not None else []
    return "-".join([*words, *seed, identity])


def write_samples(path: Path, samples: list[dict[str, Any]]) -> None:
    """Write per-sample predictions as compressed JSON lines, the same bytes for the same content."""
    lines = "".join(json.dumps(sample, sort_keys=True) + "\n" for sample in samples)
    write_atomically(path, gzip.compress(lines.encode(), mtime=0))


def write_record(directory: Path, record: Mapping[str, Any], samples: list[dict[str, Any]]) -> Path:
    """Write the predictions (if any), then the record that names them; returns the record's path."""
    name = stem(record["labels"], record["id"])
    predictions = directory / f"{name}.predictions.jsonl.gz"
    if samples:
        write_samples(predictions, samples)
    path = directory / f"{name}.json"
    write_json(path, {"schema": SCHEMA, **record, "status": "ok", "samples": predictions.name if samples else None})
    return path


def find_record(directory: Path, identity: str) -> dict[str, Any] | None:
    """The record with this identity, or None where it does not exist."""
    found = sorted(directory.glob(f"*{identity}.json"))
    return read_json(found[0]) if found else None


def load_records(results_dir: str | Path, pipeline: str) -> list[dict[str, Any]]:
    """All complete records of one pipeline under ``results/<data>``, in order of their file names.

    Raises:
        UserError: a file is not valid JSON or has another schema.
    """
    records = []
    for path in sorted(records_dir(results_dir, pipeline).glob("*.json")):
        record = read_json(path)
        if record.get("schema") != SCHEMA:
            raise UserError(f"{path} has schema {record.get('schema')}, this version reads {SCHEMA}; redo the run.")
        records.append(record)
    return records
