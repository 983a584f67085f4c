"""Zero-shot grounding: a pre-trained model asked where on an image a finding is."""
