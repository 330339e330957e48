"""gunicorn --config examples/flask_app/deploy/gunicorn.conf.py, from the root of the repository."""

import logging

wsgi_app = "examples.flask_app:create_app()"
bind = "127.0.0.1:8000"  # or "unix:/run/flask_app/gunicorn.sock", and the same in nginx.conf

# One process has all the sockets, so a message reaches all of them. Several need Redis between
# them: name it in WSM_BROKER=redis://localhost:6379/0, and raise this, or say `--workers 4`.
workers = 1

# Threads answer requests; an open socket needs none. The sync worker would do as well.
worker_class = "gthread"
threads = 8

# Seconds from SIGTERM or SIGHUP to the end of a worker: its requests are finished, then every
# socket is closed with 1012, spread over up to 10 s.
graceful_timeout = 30

# Requests and upgrades, and with INFO each socket's opening, its end, and why one was refused.
accesslog = "-"
logging.basicConfig(level=logging.INFO)

control_socket_disable = True  # its place is in $HOME, and the service has none
