"""The client of the control plane: typed calls over HTTPS, for the CLI, for scripts and for tests.

``calls`` decides what is asked, ``exchanges`` how, ``views`` what answers look like, ``failures`` what errors mean.
"""

from nearcast.client.calls import ControlClient, Progress
from nearcast.client.exchanges import Target
from nearcast.client.failures import Unreachable, failure_in
from nearcast.client.views import (
    Applied,
    ConditionView,
    ControlInfo,
    DeploymentView,
    Document,
    FleetStatus,
    ReleaseView,
    SiteModelView,
    SiteView,
    Stored,
    Targets,
    Trust,
)

__all__ = [
    "Applied",
    "ConditionView",
    "ControlClient",
    "ControlInfo",
    "DeploymentView",
    "Document",
    "FleetStatus",
    "Progress",
    "ReleaseView",
    "SiteModelView",
    "SiteView",
    "Stored",
    "Target",
    "Targets",
    "Trust",
    "Unreachable",
    "failure_in",
]
