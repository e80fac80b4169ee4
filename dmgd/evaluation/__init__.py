"""Training classifiers on an image set and comparing what they score."""
