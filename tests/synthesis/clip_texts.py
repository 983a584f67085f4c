"""The sentences of ``tests/fixtures/clip``."""

TEXTS = ("a chest X-ray", "a blurry chest X-ray", "sharp", "A photograph of a dog's paw.", "not a chest x-ray, 12 cm")
