"""A view of the app's own accepts an upgrade request: what `upgrade()` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .callables import name_of
from .environ import decode_path
from .gate.auth.anonymous import Anonymous
from .gate.auth.app import ViewAuth
from .names import is_name
from .route import Endpoint, Route
from .settings import resolve_policy
from .types import as_principal
from .wsgi import OFFER, Offer, refuse_page

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .config import Policy
    from .hub.hub import Hub
    from .route import Handler
    from .settings import Settings
    from .types import Principal

__all__ = ["make_upgrade"]


def make_upgrade(
    hub: Hub,
    handler: Handler,
    user: Principal | str | int | None,
    *,
    name: str | None,
    subprotocols: Sequence[str],
    policy: Policy,
    needs_origin: bool,
) -> WSGIApplication:
    """Return the WSGI app that a view answers with; see `WebSockets.upgrade`."""

    def make_endpoint(settings: Settings, path: str) -> Endpoint:
        # A path may be anything, and differ each time: nothing that a cap could count by.
        stable = name or name_of(handler)
        told = name or (path if is_name(path) else stable)
        route = Route("/", hub=hub, name=told, subprotocols=subprotocols, policy=policy)
        route(handler)
        # How the view knew its user is not known here: as bad as a cookie, unless it says not.
        given: Policy = {**policy, "auth": ViewAuth() if needs_origin else Anonymous()}
        whole = resolve_policy(settings, given, f"upgrade() at {path}")
        return Endpoint(route, whole, route.template, stable)

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        offer: Offer | None = environ.get(OFFER)
        if offer is None:
            return refuse_page(environ, start_response)
        endpoint = make_endpoint(offer.settings, decode_path(environ.get("PATH_INFO") or "/"))
        refusal = offer.accept(endpoint, as_principal(user), needs_origin=needs_origin)
        if refusal is not None:
            return offer.refuse(refusal, start_response)
        start_response("101 Switching Protocols", [])
        return []

    return answer
