"""List the images of a source: `ctc create-inventory`."""
