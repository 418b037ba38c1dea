"""Where workers run: launch, probe, stop."""
