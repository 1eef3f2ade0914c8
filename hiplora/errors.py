"""The one exception a user is meant to read."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in the input or the environment, told in one sentence.

    The sentence says what was wrong, what was expected and what to type instead. Entry points print it
    without a traceback and exit with status 2; library callers see an ordinary ``ValueError``.
    """
