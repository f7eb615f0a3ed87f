"""Programs of users in isolation: KPs and script rules. No Ray in here; the actors that supervise children use this.

Start with ``find_sandbox`` (what the machine can do), ``Child`` (one program) and ``WarmPool`` (children that wait).
What runs inside, before the user's program, is in ``inside``.
"""
