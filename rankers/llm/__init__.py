"""Engines that turn token ids into logits."""
