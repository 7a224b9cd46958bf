"""Revisions, oldest first. What one says is never changed once it has been released: add another."""
