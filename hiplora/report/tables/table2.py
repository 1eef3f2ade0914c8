"""Table 2: four adapters merged by addition, each task's score before and after."""

from dataclasses import replace

from hiplora.report.aggregate import cell
from hiplora.report.evidence import Evidence
from hiplora.report.notes import table
from hiplora.report.table import Column, Table

DROP = Column(label="Mean absolute drop (pp)", decimals=2, better="down", spread="ci", measure="drop", sizes=(4,))
SCORES = {"mmlu/acc": "MMLU (%)", "scienceqa/acc": "ScienceQA (%)", "gsm8k/acc": "GSM8K (%)"}
SCORES |= {f"code/{name}": f"{name} (%)" for name in ("pass@1", "pass@5", "pass@10")}
KINDS = {
    kind: [Column(label=label, spread="ci", measure=f"{kind}/{key}", sizes=(4,)) for key, label in SCORES.items()]
    for kind in ("before", "after", "Δ")
}
KINDS["Δ"].append(replace(DROP, paper="mean_abs_drop_pp/{method}"))
NOTE = (
    "Before: each adapter alone on its own task. After: one model with all four adapters added. Δ = After − Before, in "
    "pp. Mean absolute drop: mean of |Δ| over the six columns of an instance, then over instances."
)


def build(evidence: Evidence) -> Table:
    """Three rows per method, from the size-4 merges by addition."""
    cells = [
        cell(evidence, f"{evidence.experiment.label(method)}, {kind}", column, "merge", method=method)
        for method in evidence.experiment.keys("merge", "method")
        for kind, columns in KINDS.items()
        for column in columns
    ]
    return table(evidence, "Table 2", columns=KINDS["Δ"], cells=cells, notes=[NOTE])
