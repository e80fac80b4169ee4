"""Distilled images in the layouts that other tools open: WebDataset, Parquet, image folder."""
