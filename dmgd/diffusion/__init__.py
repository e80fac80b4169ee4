"""The diffusion sampler: pure functions of a denoiser, noise tensors and numbers."""
