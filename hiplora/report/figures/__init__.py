"""One file per figure; each has ``build(evidence) -> Figure``, a pure function, and draws what it has built."""

FIGURES = ("figure7", "figure8")
