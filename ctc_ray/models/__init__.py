"""Networks with one output per head, and a trained model as one folder."""
