"""Bytes and pixels: decoding, EXIF, resizing, augmentation, drawn scenes."""
