"""The doctor's tests share the published model and the hub of the hub's tests."""

from tests.hub.conftest import client, hub, published, running_hub, worker

__all__ = ["client", "hub", "published", "running_hub", "worker"]
