"""`kgate` on the command line: parses, calls one function, prints, maps the outcome to a code."""
