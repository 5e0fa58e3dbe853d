"""CEL behind a thin interface: types, functions, static checks, the engine.

Only this package imports the engine; it is loaded when the first expression is compiled.
"""
