"""Camera-trap image classification at the scale of whole conservation programmes, on Ray."""

__version__ = "0.1.0"
