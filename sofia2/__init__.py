"""What people type and import: the command, the settings and the Python KP client."""
