"""What networks and servers do to a run, done on purpose."""
