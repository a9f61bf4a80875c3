"""What of an inventory becomes a dataset: classes, labels, filters, balance, samples."""
