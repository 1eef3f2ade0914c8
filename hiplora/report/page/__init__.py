"""The report page: one self-contained HTML file with a summary, all tables and figures, and every run."""
