"""The whole system on one machine: a stand-in for AWS, the same topology, real workers."""
