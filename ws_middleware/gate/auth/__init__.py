"""Authenticators: `(UpgradeRequest) -> Principal`, or `Refused`. PyJWT is imported in `jwt` alone."""
