"""Decode and resize the images of an inventory into Parquet shards: `ctc create-dataset`."""
