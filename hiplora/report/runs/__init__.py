"""Inspection of single records: fields under dotted names, filters, predictions with their prompts, text output."""
