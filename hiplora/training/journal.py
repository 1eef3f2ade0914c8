"""Reports a training while it runs: progress bar, log lines, ``curve.jsonl``, and W&B if configured."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from hiplora.disk import disk_errors, write_atomically
from hiplora.tracking import Run, Tracker

logger = logging.getLogger(__name__)

CURVE = "curve.jsonl"


class Journal:
    """Records the optimizer steps, one entry of plain numbers each; a context manager.

    ``curve`` holds the entries of the steps done so far; a resumed training starts with its checkpoint's.
    """

    def __init__(
        self,
        folder: Path,
        *,
        steps: int,
        log_every: int,
        curve: list[dict[str, float]],
        tracker: Tracker | None,
    ) -> None:
        self.path = folder / CURVE
        self.steps, self.log_every = steps, log_every
        self.curve = curve
        self._tracker = tracker
        self._tracked: Run | None = None

    def __enter__(self) -> Journal:
        if self._tracker is not None:
            self._tracked = self._tracker.start(resumed=bool(self.curve))
            self._tracked.curve(self.curve)
        write_atomically(self.path, "".join(map(_line, self.curve)).encode())
        with disk_errors(self.path):
            self._file = self.path.open("a", buffering=1)
        self._bar = tqdm(total=self.steps, initial=len(self.curve), desc="train", unit="step", disable=None)
        self._redirect = logging_redirect_tqdm()
        self._redirect.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        self._redirect.__exit__(kind, *rest)
        self._bar.close()
        self._file.close()
        if self._tracked is not None:
            self._tracked.finish(failed=kind is not None)

    def add(self, entry: dict[str, float], *, seconds: float) -> None:
        """Record one optimizer step; ``seconds`` is the time in steps so far, without that of saving checkpoints."""
        self.curve.append(entry)
        with disk_errors(self.path):
            self._file.write(_line(entry))
        self._bar.set_postfix(loss=f"{entry['loss']:.3f}", refresh=False)
        self._bar.update()
        if self._tracked is not None:
            self._tracked.curve([entry])
        step = len(self.curve)
        if step % self.log_every == 0 or step == self.steps:
            remaining = seconds / step * (self.steps - step)
            logger.info(
                "step %d/%d loss %.4f penalty %.2e grad_norm %.3f lr %.2e tokens %d remaining %d:%02d",
                *(step, self.steps, *(entry[key] for key in ("loss", "penalty", "grad_norm", "lr", "tokens"))),
                *divmod(round(remaining), 60),
            )


def _line(entry: dict[str, float]) -> str:
    return json.dumps(entry) + "\n"
