"""From records to tables, without torch: ``experiment`` reads the runs behind a table, ``find`` their records,
``measures`` and the modules beside it say what is measured, ``aggregate`` makes cells, a file of ``tables`` says which.
"""
