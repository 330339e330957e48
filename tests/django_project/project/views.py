from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from django.contrib.auth import authenticate, login
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.views.decorators.http import require_GET, require_POST

from ws_middleware.django import upgrade

from .live import room

if TYPE_CHECKING:
    from django.http import HttpRequest

    from ws_middleware import WebSocket


@require_GET
def health(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"status": "ok", "path": request.path})


def log_in(request: HttpRequest) -> HttpResponse:
    if request.method == "GET":
        return HttpResponse(get_token(request))
    user = authenticate(request, **{key: request.POST[key] for key in ("username", "password")})
    if user is None:
        return HttpResponse("no", status=400)
    login(request, user)
    return HttpResponse("yes")


@require_POST
@login_required
def publish(request: HttpRequest, number: int) -> HttpResponse:
    sent = room.room(str(number)).send_json({"from": request.user.pk, "text": request.POST["text"]})
    return JsonResponse({"sockets": sent.result(timeout=5).local})


async def talk(ws: WebSocket, word: str) -> None:
    async for message in ws:
        await ws.send(f"{ws.user.id} {ws.user.display_name} {word} {message!r}")


@login_required
def own(request: HttpRequest, word: str) -> HttpResponse:
    response = upgrade(request, functools.partial(talk, word=word))
    response.set_cookie("word", word)
    return response


def anybody(request: HttpRequest) -> HttpResponse:
    return upgrade(request, functools.partial(talk, word="any"))


@login_required
def taken_back(request: HttpRequest) -> HttpResponse:
    upgrade(request, functools.partial(talk, word="never"))
    return HttpResponse("changed my mind", status=409)
