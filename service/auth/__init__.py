"""Who may call: API keys and their scopes, rate limits, and the record of refused calls."""
