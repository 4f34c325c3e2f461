"""The paths of the views."""

from django.urls import path

from chat import views

urlpatterns = [
    path("from-view/<room>/", views.from_view),
    path("from-thread/<room>/", views.from_thread),
]
