"""Model repositories, mirrored commit by commit: the rules for them, and their way in."""
