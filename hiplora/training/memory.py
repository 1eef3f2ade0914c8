"""The peak memory of a block of code, on a CPU or on a GPU."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from hiplora.environment import return_memory

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Callable[[], int]]:
    """Yields a function that returns the peak in bytes since the block began: torch's memory on a GPU, else RSS.

    On a CPU, freed memory is returned to the system first, because the RSS would still hold it. If the process's peak
    RSS cannot be reset (not Linux), it is that since the process started.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device)
        return
    return_memory()
    with suppress(OSError):
        RESET.write_text("5")  # resets the peak RSS on Linux
    yield _resident_peak


def _resident_peak() -> int:
    try:
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
