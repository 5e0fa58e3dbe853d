"""Advisory feeds of a site: taking them in, keeping them, signing one's own.

What an advisory means for a kernel is `kgate_scanner.advisories`' work.
"""
