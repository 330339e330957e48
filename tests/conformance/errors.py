"""The one error of the harness, apart from a server that fails its cases."""

from __future__ import annotations


class HarnessError(Exception):
    """The run could not be made; says nothing about the server. Ends with exit status 2."""
