"""Training of retrievers, bi-encoders, on the trainer of sentence-transformers."""
