"""Dynamic batching on engine threads, the limiter in front of it, and the priorities of threads."""
