"""The routes of the API, v1: each reads its request, calls the service and writes the answer."""
