"""Models: the ECG tower, the text tower, the caption decoder, and CoCa, which joins them."""
