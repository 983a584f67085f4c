"""Vision–language pre-training: image and text towers learn from pairs alone which report belongs to which image."""
