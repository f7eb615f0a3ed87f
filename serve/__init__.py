"""What runs on Ray Serve; ``serve.app`` is the composition root."""
