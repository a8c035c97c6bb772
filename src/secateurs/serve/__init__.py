"""HTTP on this machine: the server, who may use it, and a classifier as a service."""
