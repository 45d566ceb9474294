"""The HTTP calls, one router a resource."""

from __future__ import annotations

from fastapi import FastAPI


def include_routers(app: FastAPI) -> None:
    """Every resource, in the order in which the documentation shows them."""
    from service.api import datasets, generate, health, images, jobs, models, morph, page, synthetic, v2

    # Synthetic data sets come before the uploads, whose names theirs would be one of.
    for module in (generate, images, morph, synthetic, models, jobs, datasets, health, v2, page):
        app.include_router(module.router)
