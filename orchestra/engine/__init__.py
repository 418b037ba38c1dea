"""Making it happen: observe, decide, act, record. Prints nothing, parses no arguments."""
