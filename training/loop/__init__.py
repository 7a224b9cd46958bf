"""The loop: read the click log, learn, measure, decide, promote; the service then swaps the model while it serves."""
