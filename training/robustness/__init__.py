"""How far a pipeline can be led astray: by order, depth, wording, and passages written to deceive it."""
