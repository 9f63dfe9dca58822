"""The Kubernetes API at the edge: connection, gateway, election, errors. It decides nothing."""
