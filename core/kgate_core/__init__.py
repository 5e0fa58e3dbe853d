"""The vocabulary and the verifier of kgate.

Pure: no network, no database, no clock unless passed in; standard library plus cryptography.
What parses here has been checked. Nothing here reads files, prints or logs.
"""
