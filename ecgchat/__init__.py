"""The model room: ECG and text models, losses, text and evaluation. Knows nothing of clusters or of where data lies."""
