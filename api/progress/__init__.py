"""Requests under way, their listeners, and how they ended. Every API uses this package."""
