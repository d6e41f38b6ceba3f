"""What the report left open, one question a file: `python sweeps/puzzles/NAME.py`, then `python analysis/puzzles.py`."""
