"""The worker: takes tasks from queues, draws them in one shared engine, stores and announces."""
