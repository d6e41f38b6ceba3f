"""What the report left open, one question a file; `python analysis/puzzles.py` has the verdicts."""
