"""SSAP messages: parse and format in the three dialects of the published clients."""
