"""Training lists: what they are, where they come from, and what must not be in them."""
