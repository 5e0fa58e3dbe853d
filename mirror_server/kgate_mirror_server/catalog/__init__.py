"""The catalog: what is published, what was denied, and which evidence is kept for what."""
