"""Who may connect: pure decisions over an `UpgradeRequest`.

Owns: validity, routing, origins, credentials, caps, authenticators.
May import: `types`, `config`, `errors`, `names`; PyJWT in `auth/jwt.py` alone.
Must not know: clocks, sockets, tasks, threads, logs, the hub, handlers.
"""
