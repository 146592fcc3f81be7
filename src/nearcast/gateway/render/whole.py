"""The renderer's one function."""

from nearcast.gateway.render.document import GatewayFiles
from nearcast.gateway.render.inputs import GatewayInputs


def render(inputs: GatewayInputs) -> GatewayFiles:
    """The configuration of the gateway that ``inputs`` describes."""
    raise NotImplementedError
