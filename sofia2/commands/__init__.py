"""The commands of ``sofia2``, one file per group. Heavy imports stand inside the functions, so that ``--help`` is quick."""
