"""Ray actors: thin shells that hold state and wiring and call ``sib``."""
