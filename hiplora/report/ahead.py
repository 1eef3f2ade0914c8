"""Composing all rows of a grid on all cores, before they are needed one by one."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress

from hiplora.compose import compose_cached, is_kept
from hiplora.errors import UserError

FEWEST = 6  # compositions, of a tenth of a second each, from which starting processes pays off


def compose_ahead(rows: Sequence[Sequence[str]]) -> None:
    """Put the compositions of these overrides into the cache; refusals are left to the caller that needs the row.

    Processes are forked: a report loads nothing that a fork would break, and has loaded all that they need.
    """
    one_of_its_seeds = {tuple(word for word in row if not word.startswith(("seed=", "seed."))): row for row in rows}
    missing = [row for row in one_of_its_seeds.values() if _absent(row)]
    cores = min(os.cpu_count() or 1, len(missing))
    if len(missing) < FEWEST or cores < 2 or "fork" not in multiprocessing.get_all_start_methods():
        return
    _composed(missing[0])  # loads Hydra and the files that all rows share, once for all forks
    with ProcessPoolExecutor(cores, multiprocessing.get_context("fork"), _left_to_the_parent) as pool:
        list(pool.map(_composed, missing[1:]))


def _left_to_the_parent() -> None:
    """Ignore Ctrl-C in a worker: the parent handles it once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _absent(row: Sequence[str]) -> bool:
    """Whether Hydra has to compose the row: it is not cached, and not refused before that."""
    with suppress(UserError):
        return not is_kept(row)
    return False


def _composed(row: Sequence[str]) -> None:
    with suppress(UserError):  # refusals are not cached, so the caller that needs the row gets the error
        compose_cached(row)
