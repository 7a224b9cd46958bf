"""Ranking a list with a language model that sees several documents at once."""
