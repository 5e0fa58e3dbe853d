"""Keys, attestations and trust metadata: everything in kgate that holds or uses a private key.

It signs statements that it rebuilt itself from stored evidence, never a caller's bytes, and a
private key never leaves its `KeyProvider`. It decides nothing, stores nothing and serves nothing.
"""
