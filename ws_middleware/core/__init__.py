"""The sans-IO protocol: bytes in, events out, bytes out.

Owns: request heads, frames, heartbeats, the life of one connection.
May import: `types`, `config`, `errors`, and h11 and wsproto, each in one module.
Must not know: clocks, sockets, tasks, threads, logs, routes, who may connect.
"""
