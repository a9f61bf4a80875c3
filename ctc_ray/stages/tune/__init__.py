"""`ctc tune`."""
