"""Blob stores: bytes by digest. Which one is used is decided where the application is composed."""
