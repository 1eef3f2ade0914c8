"""Evaluation: lm-eval around the model in memory, pass@k in a sandbox, cross-entropy on general text."""
