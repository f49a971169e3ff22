"""The worker takes tasks from queues, works on them in one shared engine, stores and announces."""
