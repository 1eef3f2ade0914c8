"""Table 12: HiP-LoRA beside AdaLoRA and DoRA, measured as in Table 1 on two of its tasks."""

from hiplora.report.frame import Evidence
from hiplora.report.table import Table
from hiplora.report.tables import table1

NOTE = (
    "Only adapters for GSM8K and ScienceQA are trained here, so Retain and what stands beside it are means over these "
    "two, not over the four of Table 1: compare the rows with each other. What they lose is measured on all four "
    "benchmarks."
)


def build(evidence: Evidence) -> Table:
    """The columns of Table 1 whose adapters are there."""
    return table1.build(evidence, more=[NOTE])
