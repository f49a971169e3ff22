"""Jobs: requests that are accepted now and drawn later, and survive a restart.

routes   HTTP: parse, look up, answer
submission  what a client sends, validated
store    SQLite: one row a job, the only truth about its state
files    the images that rows name
runner   feeds queued jobs to the runnable and settles what it answers
live     what this process is drawing now: progress, previews, listeners
document the job as clients see it
events   progress as server-sent events
webhooks the document sent to whoever asked to be told
"""
