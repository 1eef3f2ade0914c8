"""Fine-tuning: packed rows, loss at label positions, one Trainer subclass, exact resume."""
