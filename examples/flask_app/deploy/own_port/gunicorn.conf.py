"""As ../gunicorn.conf.py, with the sockets on port 8001: for servers whose sockets can't be had."""

wsgi_app = "examples.flask_app:create_app()"
bind = "127.0.0.1:8000"
workers = 1
worker_class = "gthread"
threads = 8


def post_worker_init(worker):
    # In the worker, not in its parent: the process that listens is the one that serves. When
    # gunicorn reloads, the new worker comes before the old one goes: both have the port then.
    worker.wsgi.extensions["websockets"].listen(port=8001, reuse_port=True)
