"""The version, in one place; bundles and reports quote it."""

__version__ = "0.1.0"
