"""`make demo`: all stages on synthetic people, from rendering to a search over REST."""
