"""From records to tables, figures, plans, texts and one page, without torch. A table is made in these steps:

1. ``experiment``: the grid of its runs. ``find``: their stages and records, as ``slots``, with ``marks``.
2. ``measures``, ``matched``, ``lines``, ``edits``: what is measured of a run. ``evidence`` holds all of it.
3. ``aggregate``: samples over seeds or merges, their intervals and cells; ``contrasts`` compares two arms.
4. ``tables``, ``figures``: one file each. ``notes`` adds caption and notes; ``table`` and ``figure`` write the files.

``plan`` lists what is missing, ``terminal`` is the text of a finished run, ``runs`` inspects single records, and
``page`` puts everything on one HTML page.
"""
