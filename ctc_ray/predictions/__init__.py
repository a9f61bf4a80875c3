"""Scores of images and of capture events, and the files made of them."""
