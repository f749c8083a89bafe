"""Linkbeat's agent: counts what crosses this machine's interfaces and posts it as a heartbeat.

It imports nothing of `service`, so that it can be installed alone on a small machine.
"""

# The one place of the version: the service and both wheels read it here.
__version__ = "0.1.0"
