"""Classes: what names one, ImageNet's table, and which class of one table is which of another."""
