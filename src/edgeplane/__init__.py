"""Edgeplane: a control plane for fleets of nginx edge nodes."""

__version__ = "0.1.0"
