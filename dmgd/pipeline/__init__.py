"""What the workflows are made of: steps that combine several rooms, and that more than one workflow takes."""
