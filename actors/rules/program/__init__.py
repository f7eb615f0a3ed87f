"""What runs inside the sandbox of a rule: ``blocks.py`` is the program, ``legacy.py`` the names of old scripts.

Sent as text: the platform never imports them.
"""
