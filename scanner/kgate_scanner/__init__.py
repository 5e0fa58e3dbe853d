"""Reads the bytes of a kernel and says what is in them.

It never executes, imports or loads what it reads; equal bytes give an equal report; hostile input
costs bounded time and memory. What a finding means for admission is for a policy to say.
"""
