"""The HTTP calls, one router a resource."""
