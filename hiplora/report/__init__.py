"""From records to tables: Markdown, CSV and LaTeX, without loading torch.

``experiment`` says which runs stand behind a table, ``evidence`` what is there of them, ``tables`` turns that
into cells, ``render`` turns cells into text, ``write`` puts the text under ``results/``.
"""
