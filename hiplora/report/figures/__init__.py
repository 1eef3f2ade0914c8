"""One file per figure; each has ``build(evidence) -> Figure``, a pure function, and draws what it has built."""

FIGURES = ("figure3", "figure4", "figure5", "figure6", "figure7", "figure8")
