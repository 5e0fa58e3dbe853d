"""The facts that expressions are written over: their schema, their collection, their limits.

Nothing here evaluates anything.
"""
