"""Class statistics in a prior's latent space: encoding, the latent cache, k-means, and the file."""
