"""Jobs: requests that are accepted now and worked on later, and that survive a restart.

Each module has one task:

routes      parses, looks up and answers over HTTP
schema      describes the routes in the OpenAPI document
submission  reads what a client sends
job         is one job
document    is a job as clients see it
jobs        accepts, finds and cancels jobs; routes and hosts use it
store       keeps one row per job in SQLite, which alone decides about a job's state
files       keeps the images that rows name
lease       knows which processes are alive
runner      passes queued jobs to the runnable and writes down how they end
watch       counts and traces jobs
events      sends progress as server-sent events
webhooks    sends the document to the client's URL when a job has ended
"""
