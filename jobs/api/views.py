"""`/api/jobs/`: launch, watch, pause, resume, cancel and relaunch jobs."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ReadOnlyModelViewSet

from jobs.api.filters import JobFilter
from jobs.api.serializers import (
    EventsPageSerializer,
    EventsQuerySerializer,
    JobDetailSerializer,
    JobEventSerializer,
    JobOrderSerializer,
    JobSerializer,
)
from jobs.models import Job
from jobs.requesting_user import requesting_user
from jobs.services import (
    job_cancel,
    job_create,
    job_pause,
    job_relaunch,
    job_resume,
    job_retry_failed,
)
from portals.api.permissions import ModelPermissions

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    location=OpenApiParameter.HEADER,
    description=_(
        "A second request with the same key and body returns the job that the first one made."
    ),
)


class JobViewSet(ReadOnlyModelViewSet):
    """Transfer jobs, newest first."""

    queryset = Job.objects.select_related("source_portal", "target_portal", "requested_by")
    permission_classes = (ModelPermissions,)
    action_permissions: ClassVar = {
        "cancel": "jobs.change_job",
        "pause": "jobs.change_job",
        "resume": "jobs.change_job",
        "relaunch": "jobs.add_job",
        "retry_failed": "jobs.add_job",
    }
    filterset_class = JobFilter
    ordering_fields: ClassVar = ["created_at", "started_at", "finished_at", "status"]

    def get_queryset(self) -> QuerySet[Job]:
        """All jobs; lists omit the plan, which can be large."""
        jobs = super().get_queryset()
        return jobs.defer("plan") if self.action == "list" else jobs

    def get_serializer_class(self) -> type[JobSerializer]:
        """Return the short form for lists, the long one for a single job."""
        return JobSerializer if self.action == "list" else JobDetailSerializer

    @extend_schema(
        request=JobOrderSerializer,
        responses={201: JobDetailSerializer},
        parameters=[IDEMPOTENCY_KEY],
    )
    def create(self, request: Request) -> Response:
        """Launch a transfer."""
        order = JobOrderSerializer(data=request.data)
        order.is_valid(raise_exception=True)
        key = request.headers.get("Idempotency-Key", "")
        job = job_create(by=requesting_user(request), idempotency_key=key, **order.validated_data)
        return self._answer(job, status.HTTP_201_CREATED)

    @extend_schema(request=None, responses={202: JobDetailSerializer})
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """Cancel a job: one that never started at once, another when a worker sees the request."""
        return self._answer(
            job_cancel(self.get_object(), by=requesting_user(request)), status.HTTP_202_ACCEPTED
        )

    @extend_schema(request=None, responses={202: JobDetailSerializer})
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:
        """Pause a job: a waiting one at once, a running one when its worker sees the request."""
        job = job_pause(self.get_object(), by=requesting_user(request))
        return self._answer(job, status.HTTP_202_ACCEPTED)

    @extend_schema(request=None, responses={202: JobDetailSerializer})
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:
        """Queue a job that waits: it starts, or goes on from where it stopped."""
        job = job_resume(self.get_object(), by=requesting_user(request))
        return self._answer(job, status.HTTP_202_ACCEPTED)

    @extend_schema(request=None, responses={201: JobDetailSerializer})
    @action(detail=True, methods=["post"], url_path="retry-failed")
    def retry_failed(self, request: Request, pk: str) -> Response:
        """Launch a partial job again, as a new job, for the entries that were not delivered."""
        job = job_retry_failed(self.get_object(), by=requesting_user(request))
        return self._answer(job, status.HTTP_201_CREATED)

    @extend_schema(request=None, responses={201: JobDetailSerializer})
    @action(detail=True, methods=["post"])
    def relaunch(self, request: Request, pk: str) -> Response:
        """Launch the transfer of an ended job again, as a new job."""
        return self._answer(
            job_relaunch(self.get_object(), by=requesting_user(request)), status.HTTP_201_CREATED
        )

    @extend_schema(
        parameters=[EventsQuerySerializer], responses=EventsPageSerializer, filters=False
    )
    @action(detail=True, pagination_class=None, filterset_class=None)
    def events(self, request: Request, pk: str) -> Response:
        """List the events of a job after a number: poll with the `after` of the last reply."""
        query = EventsQuerySerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        after, limit = query.validated_data["after"], query.validated_data["limit"]
        job = self.get_object()  # Before the events: an ended job gets no further ones.
        found = list(job.events.filter(seq__gt=after).order_by("seq")[: limit + 1])
        page = found[:limit]
        answer: dict[str, Any] = {
            "results": JobEventSerializer(page, many=True).data,
            "after": page[-1].seq if page else after,
            "more": len(found) > limit,
            "is_live": job.is_live,
        }
        return Response(answer)

    def _answer(self, job: Job, code: int) -> Response:
        return Response(JobDetailSerializer(job).data, status=code)
