"""Light models on cached features: fitted, searched, calibrated, saved."""
