"""What every answer over HTTP shares: who may ask, errors, headers, the OpenAPI document."""
