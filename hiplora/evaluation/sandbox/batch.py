"""Many checks, several at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

from hiplora.evaluation.sandbox.backend import Backend
from hiplora.evaluation.sandbox.execute import execute
from hiplora.evaluation.sandbox.verdict import Check, Verdict


def run_many(
    checks: Sequence[Check],
    backend: Backend,
    *,
    workers: int | None = None,
    on_done: Callable[[int], None] | None = None,
) -> list[Verdict]:
    """Verdicts in the order of ``checks``; a check that occurs several times runs once.

    ``workers`` checks run at a time (the processors this process may use, by default). ``on_done`` is called
    in this thread with the number of entries of ``checks`` that have just been decided. Raises UserError when
    the sandbox stops working.
    """
    copies = dict.fromkeys(checks, 0)
    for check in checks:
        copies[check] += 1
    with ThreadPoolExecutor(max_workers=workers or _processors()) as pool:
        futures = {pool.submit(execute, check, backend): check for check in copies}
        try:
            for future in as_completed(futures):
                future.result()
                if on_done is not None:
                    on_done(copies[futures[future]])
        except BaseException:
            # An interrupt or a broken sandbox must not wait for the whole queue.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    verdicts = _by_check(futures)
    return [verdicts[check] for check in checks]


def _by_check(futures: dict[Future[Verdict], Check]) -> dict[Check, Verdict]:
    return {check: future.result() for future, check in futures.items()}


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
