"""Bytes and pixels: decoding, EXIF, resizing and augmentation."""
