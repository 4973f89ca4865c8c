"""Stored probability maps of any framework: read, measure, correct, write back."""

from __future__ import annotations
