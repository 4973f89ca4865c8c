"""The version, in one place: bundles, reports and evaluations quote it, and CITATION.cff is held to it."""

__version__ = "0.2.0"
