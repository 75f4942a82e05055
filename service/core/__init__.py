"""What every layer may use: types, entry models, the clock, errors, settings. It imports nothing of the service."""
