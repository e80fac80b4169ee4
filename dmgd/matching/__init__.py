"""The method: semantic matching (labels) and distribution matching (optimal transport), as pure tensor functions."""
