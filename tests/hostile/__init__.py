"""Attacks over real sockets on a server in a process of its own."""
