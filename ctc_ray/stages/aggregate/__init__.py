"""Combine finished predictions per image to predictions per event: `ctc aggregate`."""
