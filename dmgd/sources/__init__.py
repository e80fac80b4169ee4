"""Labelled images behind one interface: classes, and samples of a split."""
