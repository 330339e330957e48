"""The project on ASGI servers: by itself, and with channels, whose middleware may stand around."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
django_app = get_asgi_application()

from channels.auth import AuthMiddlewareStack  # noqa: E402 - it needs what the line above made
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import path  # noqa: E402

from ws_middleware import ScopeAuth, WebSocketMiddleware, WebSockets  # noqa: E402

from .consumers import Chat, Echo  # noqa: E402
from .live import is_member, sockets  # noqa: E402

application = sockets.asgi(django_app)

urls = URLRouter(
    [
        path("channels/room/<int:room>/", Chat.as_asgi()),
        path("channels/echo/", Echo.as_asgi()),
    ]
)
sockets.guard("/channels/room/<int:room>/", name="channels", authorize=is_member)

#: Ours around channels' login: the project's own middleware says who it is.
around = ProtocolTypeRouter(
    {
        "http": django_app,
        "websocket": WebSocketMiddleware(AuthMiddlewareStack(urls), sockets=sockets),
    }
)

#: Ours inside it: channels has found the user already.
by_scope = WebSockets(auth=ScopeAuth())
by_scope.guard("/channels/room/<int:room>/", name="channels", authorize=is_member)
inside = ProtocolTypeRouter(
    {
        "http": django_app,
        "websocket": AuthMiddlewareStack(WebSocketMiddleware(urls, sockets=by_scope)),
    }
)

#: The same authenticator on the wrong side.
wrong_side = ProtocolTypeRouter(
    {
        "http": django_app,
        "websocket": WebSocketMiddleware(AuthMiddlewareStack(urls), sockets=by_scope),
    }
)
