"""Table 13: LoRA and HiP-LoRA merged by addition and by TIES, over all sizes and for size 4."""

from dataclasses import replace

from hiplora.report.aggregate import rows
from hiplora.report.evidence import Evidence
from hiplora.report.notes import table
from hiplora.report.table import Column, Table

DROP = Column(label="Mean absolute drop{} (pp)", decimals=2, better="down", spread="ci", measure="drop")
FAIL = Column(label="MergeFail{} (%)", better="down", spread="ci", measure="fail@0.9")
COLUMNS = (  # the paper's values are beside the pooled ones
    replace(DROP, label=DROP.label.format(""), paper="{method}_{merge}/drop_pp"),
    replace(FAIL, label=FAIL.label.format(""), paper="{method}_{merge}/mergefail"),
    *(replace(each, label=each.label.format(", adapter-level"), level="adapter") for each in (DROP, FAIL)),
    *(replace(each, label=each.label.format(", size 4"), sizes=(4,)) for each in (DROP, FAIL)),
)
NOTE = (
    "Mean absolute drop: mean of |After − Before| over the metrics of an instance's tasks, then over instances. "
    "MergeFail at τ = 0.9. Columns without a remark pool all sizes and use the hierarchical bootstrap."
)


def build(evidence: Evidence) -> Table:
    """One row per method and operator."""
    cells = rows(evidence, COLUMNS, "merge", "method", "merge")
    return table(evidence, "Table 13", columns=COLUMNS, cells=cells, notes=[NOTE])
