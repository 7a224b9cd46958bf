"""Rankers over numeric features, learnt from clicks or labels."""
