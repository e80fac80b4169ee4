"""Classes: their identities, ImageNet's table and subsets, and matching between tables."""
