"""The rows of a grid are composed on all cores before they are asked for one by one."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress

from hiplora.compose import compose_cached, is_kept
from hiplora.errors import UserError

FEWEST = 6  # compositions, of a tenth of a second each, for which processes are worth starting


def compose_ahead(rows: Sequence[Sequence[str]]) -> None:
    """Put what Hydra composes of these overrides into the cache; what it refuses is left to whoever asks for it.

    Processes are forked, as a report loads nothing that a fork would break and everything that they need.
    """
    one_of_its_seeds = {tuple(word for word in row if not word.startswith(("seed=", "seed."))): row for row in rows}
    missing = [row for row in one_of_its_seeds.values() if _absent(row)]
    cores = min(os.cpu_count() or 1, len(missing))
    if len(missing) < FEWEST or cores < 2 or "fork" not in multiprocessing.get_all_start_methods():
        return
    _composed(missing[0])  # Hydra, and the files that all rows share, are then loaded for every fork
    with ProcessPoolExecutor(cores, multiprocessing.get_context("fork"), _left_to_the_parent) as pool:
        list(pool.map(_composed, missing[1:]))


def _left_to_the_parent() -> None:
    """Ctrl-C is said once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _absent(row: Sequence[str]) -> bool:
    """Whether Hydra is to be asked; not where the row is refused before that."""
    with suppress(UserError):
        return not is_kept(row)
    return False


def _composed(row: Sequence[str]) -> None:
    with suppress(UserError):  # nothing is kept, so that whoever asks for the row is told
        compose_cached(row)
