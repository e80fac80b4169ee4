"""Sources: labelled image datasets behind one interface."""
