"""One module per resource of the API. Routes import no other route."""
