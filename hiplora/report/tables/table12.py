"""Table 12: HiP-LoRA beside AdaLoRA and DoRA, measured as in Table 1."""

from hiplora.report.tables.table1 import build

__all__ = ["build"]
