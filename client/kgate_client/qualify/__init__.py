"""Puts a kernel beside its PyTorch fallback on this very machine: equal numbers, speed, memory.

Three processes. The command reads arguments, holds tokens and writes results; the judge makes the
inputs, knows the right answers and keeps the time; the candidate runs the kernel, confined, and is
believed in nothing. torch is imported in the last two only. Nothing is signed here, and a result
is no verdict on where a kernel came from.
"""
