"""The one exception whose message is written for users, and how a command ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


class UserError(ValueError):
    """A mistake in the input or the environment, stated in one sentence.

    The sentence says what was wrong, what was expected and what to type instead. Entry points print it
    without a traceback and exit with status 2; to callers of the library it is a ``ValueError``.
    """


def exit_status(command: Callable[[], int]) -> int:
    """What a command returns; 2, with the sentence on stderr, if it is refused, and 0 if its reader has gone."""
    try:
        status = command()
        sys.stdout.flush()  # here, where a closed pipe is noticed
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # for example when piped into head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
