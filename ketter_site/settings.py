"""Ketter's settings. The environment decides; there is one module for all installations."""

from __future__ import annotations

from ketter_site import __version__
from ketter_site.env import (
    BASE_DIR,
    LOOPBACK,
    VAR_DIR,
    env,
    machine_name,
    one_of,
    positive,
    required,
)
from ketter_site.servers import database_config, redis_url

# First of all: a wrong database is reported before any other setting that is missing.
DATABASES = {"default": database_config()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

SECRET_KEY = required("KETTER_SECRET_KEY", "signs sessions and forms")
FIELD_KEYS = [k.strip() for k in required("KETTER_FIELD_KEYS", "encrypts credentials").split(",")]
DEBUG = env.bool("KETTER_DEBUG", default=False)
ALLOWED_HOSTS = env.list("KETTER_ALLOWED_HOSTS", default=list(LOOPBACK))
CSRF_TRUSTED_ORIGINS = env.list("KETTER_CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    # Before django.contrib.admin: its templates replace the admin's.
    "unfold",
    "unfold.contrib.filters",
    # Ketter's apps come before django_rq: their `rqworker` replaces the stock command.
    "ketter_site.apps.SiteConfig",
    "portals.apps.PortalsConfig",
    "jobs.apps.JobsConfig",
    "dku.apps.DkuConfig",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "django_filters",
    "knox",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_rq",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "ketter_site.urls"
WSGI_APPLICATION = "ketter_site.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

REDIS_URL = redis_url()
RQ_QUEUES = {
    "default": {
        "URL": REDIS_URL,
        # The engine limits itself (stall timer, lease), however large the job is.
        "DEFAULT_TIMEOUT": -1,
        "SERIALIZER": "rq.serializers.JSONSerializer",
    }
}
# jobs.queueing.transitions enqueues jobs by `transaction.on_commit`: one mechanism defers, not two.
# Every reader of the queue uses this class, which calls no function but Ketter's own.
RQ = {"COMMIT_MODE": "auto", "JOB_CLASS": "jobs.queueing.queue_records.WakeUp"}

#: All goes to stderr, which `manage.py up` keeps in var/log: Ketter's own records and rq's from
#: INFO on, all other records from WARNING on. Django's default loses tracebacks: it mails them to
#: an empty list.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "ketter_site.logs.SecretlessFormatter",
            "format": "%(asctime)s %(levelname)s %(name)s: %(message)s",
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        **{name: {"level": "INFO"} for name in ("dku", "engine", "jobs", "ketter_site", "portals")},
        "django": {"level": "WARNING"},
        # The access log has each refusal; with tracebacks, any user could fill this log.
        "django.request": {"level": "ERROR"},
    },
}

#: The name of this machine, for portals of the kind *this machine*.
KETTER_MACHINE = machine_name()
#: Seconds a worker may be silent before its job goes to another worker.
KETTER_LEASE_SECONDS = positive("KETTER_LEASE_SECONDS", default=60)
#: Seconds between two runs of the reaper.
KETTER_REAPER_SECONDS = positive("KETTER_REAPER_SECONDS", default=15)
#: Seconds before the first retry after an error that may pass by itself; each further failure
#: doubles them, up to KETTER_RETRY_MAX_SECONDS.
KETTER_RETRY_SECONDS = positive("KETTER_RETRY_SECONDS", default=5)
KETTER_RETRY_MAX_SECONDS = positive("KETTER_RETRY_MAX_SECONDS", default=600)
#: What happens to a job whose target a live job writes to: it waits, or is refused.
KETTER_BUSY_TARGET = one_of("KETTER_BUSY_TARGET", "wait", "refuse")
#: If true, data that has arrived stays at a target whose disk is full; a retry goes on from it.
KETTER_KEEP_WHEN_FULL = env.bool("KETTER_KEEP_WHEN_FULL", default=True)
#: A job with at least so many bytes to send (0: no job) lends parcels to workers that are free.
KETTER_SPREAD_BYTES = env.int("KETTER_SPREAD_BYTES", default=4 << 30)
#: How many other workers may carry parcels of one job.
KETTER_SPREAD_WORKERS = env.int("KETTER_SPREAD_WORKERS", default=3)
#: Names of the worker's variables that ssh gets as well (Kerberos, a ProxyCommand's own).
KETTER_SSH_ENV = env.list("KETTER_SSH_ENV", default=[])

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]

LANGUAGE_CODE = "en"
#: Each has a catalogue in `locale/`; a text without a translation is shown in English.
LANGUAGES = [("en", "English"), ("pt-br", "Português (Brasil)")]
LOCALE_PATHS = [BASE_DIR / "locale"]
TIME_ZONE = env.str("KETTER_TIME_ZONE", default="UTC")
USE_I18N = True
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedStaticFilesStorage"},
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "knox.auth.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.DjangoModelPermissions"],
    "DEFAULT_FILTER_BACKENDS": [
        "django_filters.rest_framework.DjangoFilterBackend",
        "rest_framework.filters.OrderingFilter",
    ],
    "DEFAULT_PAGINATION_CLASS": "ketter_site.api.Pagination",
    "EXCEPTION_HANDLER": "ketter_site.api.exception_handler",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "PAGE_SIZE": 50,
}
REST_KNOX = {"TOKEN_TTL": None, "AUTH_HEADER_PREFIX": "Token"}
SPECTACULAR_SETTINGS = {
    "TITLE": "Ketter API",
    "VERSION": __version__,
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}
UNFOLD = {
    "SITE_TITLE": "Ketter",
    "SITE_HEADER": "Ketter",
    "SITE_SYMBOL": "sync_alt",
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": "/static/ketter/favicon.svg"},
    ],
    "SIDEBAR": {"navigation": "ketter_site.admin.navigation"},
}
