"""Linkbeat's agent: counts what crosses this machine's interfaces and posts it as a heartbeat.

It imports nothing of `service`, so that it can be installed alone on a small machine.
"""

__version__ = "0.1.0"
