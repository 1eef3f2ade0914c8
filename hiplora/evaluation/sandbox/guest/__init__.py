"""What runs inside the sandbox: the standard library only, imported before the process is confined.

Every check starts two interpreters, so these modules import little: not ``typing``, ``re`` or ``enum``, each of
which takes longer than starting Python.
"""
