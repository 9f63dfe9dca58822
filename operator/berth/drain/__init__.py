"""The drain sidecar, `berth drain`: it holds SIGTERM back until a server has finished its requests."""
