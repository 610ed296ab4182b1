"""Golden model: what a quantized network computes, in NumPy, stated so that a reader can check it."""
