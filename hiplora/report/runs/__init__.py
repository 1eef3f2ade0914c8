"""Records one by one: their fields under dotted names, filters over them, predictions with their prompts, as text."""
