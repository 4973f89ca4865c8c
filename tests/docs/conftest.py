"""The site's pages in the browser that the report's tests use."""

from browsers import chromium, violations

__all__ = ["chromium", "violations"]
