"""A stateful fuzz test of the REST API, which is compared with a reference model after every step.

values     strategies for values in requests, valid and hostile
model      the expected content and searches of a gallery, by brute force
api        HTTP calls, and the checks that apply to every response
machine    the rules: all calls of the API, restarts, SIGKILL, change of the model, transfer to another service
"""
