"""Which windows to look at, in what order."""
