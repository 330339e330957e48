"""Rules of the house, to see them hold on upgrade requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.exceptions import PermissionDenied
from django.http import HttpResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest


def house_rules(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        match request.GET.get("please"):
            case "teapot":
                return HttpResponse("<h1>short and stout</h1>", status=418)
            case "forbid":
                raise PermissionDenied
            case "redirect":
                return HttpResponse(status=302, headers={"Location": "/login/"})
            case "fine":
                return HttpResponse("all is well")
        response = get_response(request)
        response.headers["X-House"] = "rules"
        if "HTTP_UPGRADE" in request.META:
            response.set_cookie("visited", request.path)
        return response

    return middleware
