"""A stateful fuzz over the real REST API, compared with a model by brute force after every step.

values     what is sent: good values, and the extremes of every kind
model      what a gallery must hold and answer, computed by brute force
api        HTTP calls, and what every answer must be whatever was sent
machine    the rules: every call of the API, restarts, SIGKILL, another model, another service
"""
