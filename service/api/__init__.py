"""The HTTP edge. A route parses a request, calls one use case and maps the result to the wire.

`app` builds the application, `server` runs it. Errors of every layer below become problem documents in `responses`.
"""
