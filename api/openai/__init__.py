"""OpenAI's image API, onto our parameters. docs/clients.md says what each of its fields means."""
