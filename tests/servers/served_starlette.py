"""A Starlette application with headrace's consumers behind its sessions and authentication."""

from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Mount, Route, WebSocketRoute

from headrace import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer, URLRouter, path


class UserOfSession(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        if "user" not in conn.session:
            return None
        return AuthCredentials(["authenticated"]), SimpleUser(conn.session["user"])


class WhoAmI(AsyncJsonWebsocketConsumer):
    async def connect(self) -> None:
        await self.accept()
        route = self.scope.get("url_route", {}).get("kwargs")
        await self.send_json({"user": self.scope["user"].display_name, "route": route})


class SyncWhoAmI(JsonWebsocketConsumer):
    def connect(self) -> None:
        self.accept()
        route = self.scope.get("url_route", {}).get("kwargs")
        self.send_json({"user": self.scope["user"].display_name, "route": route})


async def log_in(request: Request) -> Response:
    request.session["user"] = "ada"
    return Response()


application = Starlette(
    routes=[
        Route("/log-in/", log_in, methods=["POST"]),
        WebSocketRoute("/who/", WhoAmI.as_asgi()),
        WebSocketRoute("/sync-who/", SyncWhoAmI.as_asgi()),
        Mount(
            "/mounted",
            URLRouter([path("<int:number>/", WhoAmI.as_asgi()), path("sync/<int:number>/", SyncWhoAmI.as_asgi())]),
        ),
    ],
    middleware=[
        Middleware(SessionMiddleware, secret_key="of an application that keeps no secrets"),
        Middleware(AuthenticationMiddleware, backend=UserOfSession()),
    ],
)
