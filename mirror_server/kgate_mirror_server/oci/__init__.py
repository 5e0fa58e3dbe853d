"""Kernels in OCI registries: what a site published, pushed, listed, pulled back and mounted.

`shape` says how a publication looks in a registry, `registry` speaks to one, `push` and `upstream`
use both. Serving the registry's own API is not attempted: there are good registries.
"""
