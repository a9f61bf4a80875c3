"""Batches of a dataset, and one epoch of training or evaluation on them."""
