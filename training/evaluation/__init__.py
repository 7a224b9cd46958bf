"""Offline evaluation of pipelines on judged collections."""
