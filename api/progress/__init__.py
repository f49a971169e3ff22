"""Live requests and their listeners, used by every API."""
