"""Advisories and VEX, offline: reads OSV, CSAF 2.0, CycloneDX and OpenVEX, and compares.

Whose advisories count, and whether they are fresh, is for the caller to say. What cannot be told
is `unknown`, never `not affected`.
"""
