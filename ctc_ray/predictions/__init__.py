"""Predictions per image and per capture event, and the files of other programs."""
