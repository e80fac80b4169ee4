"""Frozen class-conditional diffusion models behind one interface: predict, encode, decode, embed labels, defaults."""
