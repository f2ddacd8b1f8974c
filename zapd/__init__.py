"""zapd: the central authentication service for ZeroMQ fleets.

Importing this package costs nothing but pyzmq and PyNaCl, and only where a room needs them; the
daemon's libraries come with ``zapd[server]``.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("zapd")
except PackageNotFoundError:  # a source tree on the path, never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
