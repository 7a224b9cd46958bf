"""Unbiased learning to rank: rankers from clicks, and not from where a list put what was clicked."""
