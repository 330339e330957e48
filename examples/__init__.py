"""Small apps that show ws_middleware inside code a team already has."""
