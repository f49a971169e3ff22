"""The Stable Diffusion WebUI's API, onto our parameters. docs/clients.md says what means what."""
