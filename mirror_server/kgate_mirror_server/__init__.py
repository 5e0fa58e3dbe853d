"""Brings kernels in, decides, keeps them and serves them: the only part that knows the others."""
