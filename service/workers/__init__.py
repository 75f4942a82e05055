"""Background jobs: retention, re-embedding, index maintenance and its snapshots. Each runs in a guarded loop."""
