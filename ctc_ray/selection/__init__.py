"""From an inventory to the labelled rows of a dataset: class names, labels, filters, samples."""
