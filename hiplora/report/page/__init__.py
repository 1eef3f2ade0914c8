"""One self-contained HTML file of everything that records say: a summary, tables, figures, and every run."""
