"""Networks with one output per head, and folders that hold a trained model."""
