"""Every address Ketter answers at: the admin, one API router, docs and health."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path, re_path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.routers import DefaultRouter

from jobs.api.views import JobViewSet
from ketter_site import api, health
from portals.api.views import CredentialViewSet, PortalViewSet

handler400 = "ketter_site.api.bad_request"
handler404 = "ketter_site.api.not_found"
handler500 = "ketter_site.api.server_error"

router = DefaultRouter()
router.register("portals", PortalViewSet, basename="portal")
router.register("credentials", CredentialViewSet, basename="credential")
router.register("jobs", JobViewSet, basename="job")

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index"), name="home"),
    path("admin/", admin.site.urls),
    path("api/schema/", SpectacularAPIView.as_view(), name="api-schema"),
    path("api/docs/", SpectacularSwaggerView.as_view(url_name="api-schema"), name="api-docs"),
    path("api/", include(router.urls)),
    re_path(r"^api/.*[^/]$", api.without_slash),
    path("status/", health.status, name="status"),
    path("health", health.health, name="health"),
]
