"""One file per table; each has ``build(evidence) -> Table``, a pure function."""

TABLES = (
    "table1",
    "table2",
    "mergefail",
    "table3",
    "table4",
    "table5",
    "table6",
    "table7",
    "table8",
    "table9",
    "table10",
    "table11",
    "table12",
    "table13",
    "table14",
    "table15",
    "table16",
    "differences",
)
