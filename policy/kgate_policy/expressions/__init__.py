"""Policies that people write as expressions, in the shape of a ValidatingAdmissionPolicy.

`model` holds them, `reading` reads and compiles them, `running` asks them, `tenants` asks those
of people who are not trusted in a child process. The built-in rules are elsewhere: `baseline`.
"""
