"""`make demo`: the whole path on synthetic people, from rendering to searching over REST."""
