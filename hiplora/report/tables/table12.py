"""Table 12: HiP-LoRA beside LoRA, AdaLoRA and DoRA, measured as in Table 1 on two of its tasks."""

from hiplora.report.evidence import Evidence
from hiplora.report.table import Table
from hiplora.report.tables import table1

PAIRS = [("hip", "adalora"), ("hip", "dora"), ("hip", "lora"), ("adalora", "lora"), ("dora", "lora")]
NOTE = (
    "Only adapters for GSM8K and ScienceQA are trained here, so Retain and the columns after it are means over these "
    "two, not over the four of Table 1: compare the rows with each other only. Losses are measured on all benchmarks."
)


def build(evidence: Evidence) -> Table:
    """Table 1's columns for the tasks of this grid, then differences between methods."""
    return table1.build(evidence, more=[NOTE], pairs=PAIRS)
