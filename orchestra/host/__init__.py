"""This machine: processes, load, changes, the clock. Knows nothing of runs."""
