"""MQTT 3.1, 3.1.1 and 5 without a socket: codec, topic filters, session state."""
