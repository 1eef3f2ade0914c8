"""From records to tables: Markdown, CSV and LaTeX, without loading torch.

``experiment`` reads the grid of runs behind a table, ``find`` the records of their stages, ``frame`` lays the numbers
out as one long frame, ``measures`` derives Retain, drops and failures from it. ``aggregate`` turns measures into cells,
one file under ``tables`` says which, ``notes`` what a reader must know, ``render`` and ``write`` put them into files.
"""
