"""The front door: validates a task, publishes it, tells its status. Runs on AWS Lambda."""
