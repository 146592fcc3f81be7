"""Desired state: every resource of a fleet at one moment, and the content hash that names the moment."""

from dataclasses import dataclass

from nearcast.resources.kinds import AnyResource, Deployment, Model, Policy, Site, revision_of_resource
from nearcast.resources.revision import revision_of


@dataclass(frozen=True, slots=True)
class DesiredState:
    """What users asked for. Names are unique within a kind; tuples are sorted by name."""

    sites: tuple[Site, ...] = ()
    models: tuple[Model, ...] = ()
    deployments: tuple[Deployment, ...] = ()
    policies: tuple[Policy, ...] = ()

    @classmethod
    def of(cls, resources: "list[AnyResource]") -> "DesiredState":
        """The state that holds ``resources``."""
        ordered = sorted(resources, key=lambda resource: resource.name)
        return cls(
            sites=tuple(item for item in ordered if isinstance(item, Site)),
            models=tuple(item for item in ordered if isinstance(item, Model)),
            deployments=tuple(item for item in ordered if isinstance(item, Deployment)),
            policies=tuple(item for item in ordered if isinstance(item, Policy)),
        )

    @property
    def revision(self) -> str:
        """Content hash of everything in it."""
        resources: tuple[AnyResource, ...] = (*self.sites, *self.models, *self.deployments, *self.policies)
        return revision_of([[item.kind, item.name, revision_of_resource(item)] for item in resources])
