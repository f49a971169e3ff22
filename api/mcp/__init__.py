"""`/mcp`: the Model Context Protocol, by which agents use the service."""
