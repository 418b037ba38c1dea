"""Where things lie on disk: paths, whole-file publishing, the event log, the lock. Decides nothing."""
