"""Segmentation: where in the image each finding (or the lungs) is, pixel by pixel."""
