"""`kgate demo`: the whole story on one machine, with real parts and stock clients."""
