"""The URLs of the project."""

from django.urls import path

from . import views

urlpatterns = [
    path("", views.page, name="page"),
    path("announce/", views.announce, name="announce"),
]
