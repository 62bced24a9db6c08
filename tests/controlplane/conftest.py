from .fixture import control_plane

__all__ = ["control_plane"]
