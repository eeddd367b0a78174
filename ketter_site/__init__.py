"""The Django project that ties Ketter's apps together."""

#: Ketter's version; every other place reads it here.
__version__ = "0.1.0"
