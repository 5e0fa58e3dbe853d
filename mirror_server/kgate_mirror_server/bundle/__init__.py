"""Bundles: what a site published, carried to another site on discs, and what comes back.

`exporting` writes one, `receiving` and `importing` take one in, `receipts` says what arrived. The
format is in `document` and `layout`. Nothing here talks to a network.
"""
