"""From statistics to latents: batches, sampling, and the same images made again."""
