"""What a folder holds: `ctc show`."""
