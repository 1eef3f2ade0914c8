"""What a training tells while it runs: a progress bar, log lines, ``curve.jsonl``, and W&B where asked."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from hiplora.errors import UserError
from hiplora.records import disk_errors, write_atomically

logger = logging.getLogger(__name__)

CURVE = "curve.jsonl"


class Journal:
    """Record of the optimizer steps, one entry of plain numbers each; a context manager.

    ``curve`` holds the entries of the steps done so far (of a resumed training: those of its checkpoint).
    """

    def __init__(
        self,
        folder: Path,
        *,
        steps: int,
        log_every: int,
        curve: list[dict[str, float]],
        wandb: dict[str, Any] | None,
    ) -> None:
        self.path = folder / CURVE
        self.steps, self.log_every = steps, log_every
        self.curve = curve
        self._wandb_options = wandb
        self._wandb: Any = None

    def __enter__(self) -> Journal:
        write_atomically(self.path, "".join(map(_line, self.curve)).encode())
        self._file = self.path.open("a", buffering=1)
        self._wandb = start_wandb(self._wandb_options, self.path.parent)
        self._bar = tqdm(total=self.steps, initial=len(self.curve), desc="train", unit="step", disable=None)
        self._redirect = logging_redirect_tqdm()
        self._redirect.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        self._redirect.__exit__(kind, *rest)
        self._bar.close()
        self._file.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=int(kind is not None))

    def add(self, entry: dict[str, float], *, tokens: int, seconds: float) -> None:
        """Take down one optimizer step; ``tokens`` and ``seconds`` count from the start of the training."""
        self.curve.append(entry)
        with disk_errors(self.path):
            self._file.write(_line(entry))
        self._bar.set_postfix(loss=f"{entry['loss']:.3f}", refresh=False)
        self._bar.update()
        if self._wandb is not None:
            self._wandb.log({f"train/{key}": value for key, value in entry.items()} | {"train/tokens": tokens})
        step = len(self.curve)
        if step % self.log_every == 0 or step == self.steps:
            remaining = seconds / step * (self.steps - step)
            logger.info(
                "step %d/%d loss %.4f penalty %.2e grad_norm %.3f lr %.2e tokens %d remaining %d:%02d",
                *(step, self.steps, entry["loss"], entry["penalty"], entry["grad_norm"], entry["lr"], tokens),
                *divmod(round(remaining), 60),
            )


def start_wandb(options: dict[str, Any] | None, folder: Path) -> Any:
    """A W&B run, offline unless WANDB_MODE says otherwise; None where no options are given.

    ``options`` are keyword arguments of ``wandb.init``; files go to ``folder`` by default. Raises UserError
    where wandb is not installed.
    """
    if options is None:
        return None
    try:
        import wandb
    except ImportError as error:
        raise UserError("logging=wandb needs the wandb package: type pip install wandb, or logging=plain") from error
    mode = os.environ.get("WANDB_MODE", "offline")
    return wandb.init(**{"project": "hiplora", "dir": str(folder), "mode": mode, **options})


def _line(entry: dict[str, float]) -> str:
    return json.dumps(entry) + "\n"
