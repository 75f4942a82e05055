"""ASGI middleware around every route: request ids, logs and headers; load shedding and the budget of request bodies."""
