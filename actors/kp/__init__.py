"""KPs that run inside the platform: what their folders say, their files and dependencies, and the actor that supervises each.

Only ``worker`` and ``container`` know actors; the rest is used by the command line, too.
"""
