"""Who is connected, and sending to many.

Owns: the registry of one event loop, audiences, the fan-out over the loops of a process.
May import: `types`, `config`, `errors`, `names`, `receipt`, `codec`.
Must not know: the protocol, who may connect, sockets, handlers. `registry` and `audience` know no
clock, task, thread or log either.
"""
