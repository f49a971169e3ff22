"""Checks every ready deployment: `make deploy-check`, or `python -m deploy.check` in .venv-deploy.

ready.py finds the configurations, steps.py is what is done to each, terraform.py and stand_in.py
run Terraform and a local stand-in for AWS (moto). An operator's own part is data: what lies in
`deploy/operators/NAME/stand_in/`, see `stand_in.Overrides`.
"""
