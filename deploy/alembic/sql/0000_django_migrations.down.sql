DROP TABLE "django_migrations" CASCADE;
