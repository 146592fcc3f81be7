"""The shell of the control plane: HTTP API, store, certificate authority, publisher. `planning` decides; this does."""
