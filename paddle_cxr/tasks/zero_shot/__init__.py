"""Zero-shot classification: a pre-trained model asked which findings an image shows, with no classifier trained."""
