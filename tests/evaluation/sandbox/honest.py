"""Programs that a person would write, each with the test that it passes: what the sandbox must not get in the way of.

Each is ``f``; the text of a test is the body of ``check(candidate)``.
"""

from __future__ import annotations

from tests.evaluation.sandbox.honest_language import LANGUAGE
from tests.evaluation.sandbox.honest_library import LIBRARY

HONEST = LANGUAGE | LIBRARY
