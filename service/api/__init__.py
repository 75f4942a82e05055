"""The HTTP edge. A route parses a request to a command, calls one use case, and maps the result to the response.

app, server                  the application, and the server that runs it
listener, connection         limits on connections, before a request reaches the application
middleware                   request context and deadline, load shedding
auth, dependencies           authentication; the use cases
parsing, mapping             from requests to commands, from results to JSON
problems, responses, openapi errors, JSON responses, documentation of bodies

Routes import neither other routes nor the parts behind the use cases; `tests/test_imports.py` checks this.

May import: container, galleries, auth, batching, observability, core.
"""

__all__ = ["app", "server"]
