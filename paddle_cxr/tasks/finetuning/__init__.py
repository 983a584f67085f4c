"""Fine-tuning: findings from images, starting from a pre-trained image tower, with few labels or many."""
