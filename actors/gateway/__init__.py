"""Gateways: bytes of a transport to one ``sib.ssap`` request and its answer back to bytes."""
