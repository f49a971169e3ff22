"""Samplers are data: diffusers' schedulers, compiled to tables that one product advances.

names      samplers by name, without torch
scheduler  a name and a model's scheduler config to diffusers' scheduler
compile    a scheduler to its table
table      the table, and the product that advances rows by it
"""
