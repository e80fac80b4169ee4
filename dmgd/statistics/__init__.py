"""The statistics of every class in a prior's latent space: encoding, k-means, and the file."""
