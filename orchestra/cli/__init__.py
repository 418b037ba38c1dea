"""Speaking with people and scripts: one file per verb, one error boundary."""
