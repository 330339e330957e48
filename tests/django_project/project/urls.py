from __future__ import annotations

from django.urls import path

from . import views

urlpatterns = [
    path("health/", views.health),
    path("login/", views.log_in),
    path("rooms/<int:number>/", views.publish),
    path("own/<str:word>/", views.own),
    path("anybody/", views.anybody),
    path("taken-back/", views.taken_back),
]
