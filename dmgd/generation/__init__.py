"""From statistics to latents: batches, sampling, and regeneration."""
