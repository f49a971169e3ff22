"""The front door: validates a task, publishes it, answers with its status. Runs on AWS Lambda."""
