"""Event loops, clocks, sockets, threads and logs: everything that happens in time.

Owns: the engine, runtimes, links, timers, threads, the sidecar, the listener.
May import: everything below: routes, websockets, the hub, the gate, the core.
Must not know: Flask, Django, WSGI, ASGI; a door tells it what it needs.
"""
