"""The one exception whose message is written for users."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in the input or the environment, stated in one sentence.

    The sentence says what was wrong, what was expected and what to type instead. Entry points print it
    without a traceback and exit with status 2; to callers of the library it is a ``ValueError``.
    """
