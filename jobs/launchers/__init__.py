"""Where a stage can be sent, one module each: what it takes on the command line, what it would run, and running it."""
