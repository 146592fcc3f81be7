"""The ``nearcast`` command. It talks to the control plane through :mod:`nearcast.client` and to gateways as any client.

One module per command, imported when the command runs, so that ``nearcast --help`` pays for none of them. Data go to
standard output, everything else to standard error.
"""
