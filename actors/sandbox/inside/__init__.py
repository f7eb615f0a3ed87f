"""What runs inside a sandbox before and beside the user's program: standard library only, nothing of the platform.

The folder is visible inside, read-only; ``first.py`` is started by bubblewrap (or directly, at the fallback level). All of it
is trusted until ``jail.enter`` returns; from then on the process belongs to the user's program, and nothing here protects.
"""
