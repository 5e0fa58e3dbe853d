"""The way in: from a pin to fetched, scanned, decided evidence; `admit.py` ties it together."""
