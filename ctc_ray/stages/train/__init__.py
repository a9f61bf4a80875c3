"""Train a model with one output per head: `ctc train`."""
