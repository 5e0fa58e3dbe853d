"""Serving: published kernels and their attestations over HTTP, from memory and the blob store.

No request here ever reaches an upstream, and nothing that was not verified is answered with.
"""
