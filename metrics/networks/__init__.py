"""The networks that the metrics measure in, and the way from a name or a file to one of them."""

from metrics.networks.registry import Network, load_network

__all__ = ["Network", "load_network"]
