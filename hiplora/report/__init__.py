"""From records to tables, without torch: ``experiment`` reads the runs behind a table, ``find`` their records,
``frame`` lays their numbers out, ``measures`` derives more, ``aggregate`` makes cells, a file of ``tables`` says which.
"""
