"""Authenticators: `(UpgradeRequest) -> Principal`, or `Refused`. PyJWT is used in `jwt` alone."""
