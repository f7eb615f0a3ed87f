"""Script rules, as far as they need no process, socket or clock: what a rule is, what it may ask for, how failures count."""
