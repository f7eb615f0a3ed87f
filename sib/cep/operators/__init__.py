"""The kinds of rule: each an operator from events in order of time to outputs. Start with :mod:`.base`."""
