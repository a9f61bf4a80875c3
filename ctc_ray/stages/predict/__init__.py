"""Answer for every image and every capture event: `ctc predict`."""
