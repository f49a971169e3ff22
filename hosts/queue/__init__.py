"""Asynchronous Stable Diffusion: a front door on Lambda, workers on SQS, results in S3.

client -> API Gateway -> front (Lambda) -> SNS -> SQS, a queue a runtime -> worker -> S3
                                                                         -> SNS (completed)
"""
