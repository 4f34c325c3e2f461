"""The page of the counter, and a reset from a view."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, HttpResponseForbidden
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from headrace.sockets import Broadcaster

from .models import Counter


@never_cache
@login_required
def page(request: HttpRequest) -> HttpResponse:
    """Show the counter."""
    return render(request, "counter.html")


@require_POST
def reset(request: HttpRequest) -> HttpResponse:
    """Set the counter to zero, for staff, and tell every socket."""
    if not request.user.is_staff:
        return HttpResponseForbidden("Only staff may reset the counter.")
    Broadcaster().broadcast("counter", Counter.change(request.user.get_username(), 0))
    # A browser stays on its page, which learns of the reset from its socket.
    return HttpResponse(status=204)
