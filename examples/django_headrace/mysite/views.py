"""The page of the chat, and an announcement from a view."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from headrace import channel_layers


def page(request: HttpRequest) -> HttpResponse:
    """Show the chat; keep the name that somebody enters in the session."""
    if request.method == "POST":
        request.session["name"] = request.POST.get("name", "")
        return redirect("page")
    return render(request, "chat.html", {"name": request.session.get("name")})


@require_POST
def announce(request: HttpRequest) -> HttpResponse:
    """Say something to everyone in the lobby."""
    message = {"type": "chat.message", "name": None, "text": request.POST.get("text", "")}
    channel_layers["default"].group_send_sync("lobby", message)
    return HttpResponse(status=204)
