"""Vectors on disk behind a small index in memory."""
