"""Training of listwise LLM rerankers: FIRST (arXiv 2406.15657) on any causal model."""
