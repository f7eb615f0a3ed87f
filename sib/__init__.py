"""What a Semantic Information Broker means: pure code without Ray, sockets, drivers or a clock of its own."""
