"""Running model-written code: one pair of confined processes per check.

The candidate's process has the program and nothing else; the checker's has the test, calls the candidate
through a pipe and compares plain values. They do not share an interpreter, because a candidate in the checker's
interpreter can forge any verdict: it can walk frames, rewrite ``assert`` and read the checker's memory.

``choose_backend`` finds a sandbox that works on this machine; ``run_many`` judges completions in it.
"""

from hiplora.evaluation.sandbox.backend import Backend
from hiplora.evaluation.sandbox.batch import run_many
from hiplora.evaluation.sandbox.choice import choose_backend
from hiplora.evaluation.sandbox.verdict import Check, Verdict

__all__ = ["Backend", "Check", "Verdict", "choose_backend", "run_many"]
