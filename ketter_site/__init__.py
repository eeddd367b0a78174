"""The Django project that ties Ketter's apps together."""

#: The one place that says which Ketter this is.
__version__ = "0.1.0"
