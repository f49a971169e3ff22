"""The parts that our bentoctl operators share, and bentoctl 0.4.0 adapted to run them.

bentoctl is no longer developed. `make deploy-tools` installs it, pinned, in `.venv-deploy`, and
this package's console script `bentoctl` in its place: the same commands, with `adaptations.py` in
effect.

An operator is a folder with `operator_config.py` and one package of a name of its own (two
operators share one `sys.path`). To write one:

1. `spec.py` of its package: a class on `sd_bentoctl.spec.Spec`, one described field a setting, with
   `ValueError`s that name the fix. Ready-made field types: `sd_bentoctl.spec` (Region, Cidr...).
   A validator across fields raises `ValueError("field: what is wrong; what to do")`.
2. `operator_config.py`: OPERATOR_NAME, OPERATOR_MODULE, OPERATOR_DEFAULT_TEMPLATE = "terraform",
   OPERATOR_SPEC = the class, OPERATOR_SCHEMA = `sd_bentoctl.schema.cerberus_schema(the class)`.
3. `__init__.py` of its package exports the four functions that bentoctl calls:
   `generate(name, spec, template_type, destination_dir, values_only)`, which calls
   `sd_bentoctl.generate.write(...)` with its Terraform folder and its values;
   `create_deployable` from `sd_bentoctl.deployable`; `create_repository` and `delete_repository`
   from `sd_bentoctl.ecr` (they read `region` and `kms_key_arn` of the spec). It may export
   `wait(outputs, spec)`, called after `bentoctl apply`: see `sd_bentoctl.waiting`.

`sd_bentoctl.document.check(document, Spec)` validates a whole deployment configuration without
bentoctl, and lists every problem as `field: what is wrong; what to do`.
"""
