"""The common ground of the service and of training."""
