"""A client of the service, for programs: :class:`Client`, and :class:`AsyncClient` for asyncio.

``calls.py`` says what is asked and what an answer means, once for both, as generators of requests; ``sync.py`` and
``asynchronous.py`` carry the requests; ``exchange.py`` is what they share: a request, its answer, and how long a
refusal is waited out.
"""

from ganserve.client.answers import Dataset, Job, Model
from ganserve.client.asynchronous import AsyncClient, AsyncJobs
from ganserve.client.sync import Client, Jobs

__all__ = ["AsyncClient", "AsyncJobs", "Client", "Dataset", "Job", "Jobs", "Model"]
