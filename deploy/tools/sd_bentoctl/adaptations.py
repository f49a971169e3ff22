"""bentoctl 0.4.0 as we need it: what it does wrong, and what stands in its place.

Nothing else is patched. Each has a test in tests/deploy/test_adaptations.py.

honest_errors           exits with 0 after its own errors -> to stderr, and 1
honest_terraform        ignores Terraform's exit status -> an error that names it;
                        destroy skips Terraform where the root module has no outputs, yet deletes
                        the image repository -> the state is asked for resources
our_operators           downloads operators by name from GitHub, unpinned -> a name is one of
                        deploy/operators, anything else a folder; installing one again is no error
clear_messages          cerberus' messages, unknown top-level keys ignored -> `document.check`, for
                        operators that have an OPERATOR_SPEC
answerable_questions    `init` drops answers that are false or 0, and writes every default down ->
                        keeps what differs from the default
working_build           deletes the build context before it is used, calls what bentoml 1.4 no
                        longer has, leaves out models -> bentoml's own context, and docker,
                        podman or buildah; an image that is in the repository is not pushed again;
                        a Bento for another precision or accelerator is refused
waiting_apply           ends before anything serves -> waits for the operator's `wait`, where it
                        has one, with a time limit and the reason
no_tracking             phones home -> does not
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import bentoctl.cli
import bentoctl.deployment_config
import bentoctl.operator.registry
import bentoctl.utils.terraform
from bentoctl.cli import interactive
from bentoctl.exceptions import BentoctlException, InvalidDeploymentConfig

from sd_bentoctl import containers, ecr
from sd_bentoctl.deployable import DOCKERFILE, two_stages
from sd_bentoctl.document import Wrong, check
from sd_bentoctl.labels import mismatch
from sd_bentoctl.waiting import Unready

OPERATORS = Path(__file__).resolve().parents[2] / "operators"
Config = bentoctl.deployment_config.DeploymentConfig


def adapt() -> None:
    """Put every adaptation into effect, for this process."""
    for change in (
        no_tracking,
        honest_errors,
        honest_terraform,
        our_operators,
        clear_messages,
        answerable_questions,
        working_build,
        waiting_apply,
    ):
        change()


def no_tracking() -> None:
    # read by bentoctl and by bentoml's analytics, which bentoctl uses
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"


def honest_errors() -> None:
    def show(error: Exception) -> NoReturn:
        print(f"bentoctl: {error}", file=sys.stderr)
        sys.exit(1)

    # every place that catches a BentoctlException calls show() next
    BentoctlException.show = show


def honest_terraform() -> None:
    def run(command: list[str], return_output: bool = False) -> Any:
        if not shutil.which("terraform"):
            raise BentoctlException("terraform is not installed, or not on the PATH")
        done = subprocess.run(
            ["terraform", *command], capture_output=return_output, text=True, check=False
        )
        if return_output:
            return done.returncode, done.stdout, done.stderr
        if done.returncode:
            raise BentoctlException(
                f"`terraform {command[0]}` failed with status {done.returncode}"
            )
        return None

    def applied() -> bool:
        status, resources, _ = run(["state", "list"], return_output=True)
        # the status is 1 where there is no state at all
        return status == 0 and bool(resources.strip())

    bentoctl.utils.terraform.terraform_run = run
    bentoctl.cli.is_terraform_applied = applied


def our_operators() -> None:
    registry = bentoctl.operator.registry.OperatorRegistry
    bentoctl.operator.registry.OFFICIAL_OPERATORS.clear()
    install = registry.install_operator

    def again(self: Any, name: str, version: str | None = None) -> str:
        path = str(operator_folder(name))
        same = [key for key, one in self.operators_list.items() if one["path"] == path]
        for key in same:
            del self.operators_list[key]
        return str(install(self, path, version))

    registry.install_operator = again


def operator_folder(name: str) -> Path:
    """The folder of an operator: one of ours by its name, or any by its path."""
    given, ours = Path(name).resolve(), OPERATORS / name
    return ours if ours.is_dir() and not (given / "operator_config.py").exists() else given


def clear_messages() -> None:
    set_spec, set_env = Config._set_operator_spec, Config._set_env

    def env(self: Any) -> None:
        if not hasattr(self.operator.operator_config, "OPERATOR_SPEC"):
            set_env(self)

    def spec(self: Any) -> None:
        model = getattr(self.operator.operator_config, "OPERATOR_SPEC", None)
        if model is None:
            set_spec(self)
            return
        try:
            top, checked = check(self.deployment_config, model)
        except Wrong as error:
            raise InvalidDeploymentConfig(_listed(error.problems)) from error
        self.env = top.env
        self.operator_spec = {**checked.model_dump(mode="json"), "env": top.env or {}}

    Config._set_env, Config._set_operator_spec = env, spec


def _listed(problems: list[str]) -> str:
    count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
    return "\n".join([f"{count} in the deployment configuration:", *(f"  {p}" for p in problems)])


def answerable_questions() -> None:
    def answers(schema: dict[str, dict[str, Any]]) -> dict[str, Any]:
        given = {name: interactive.prompt_input(name, rule) for name, rule in schema.items()}
        return {
            name: value
            for name, value in given.items()
            if value not in (None, {}) and value != schema[name].get("default")
        }

    interactive.generate_spec = answers


def waiting_apply() -> None:
    apply = bentoctl.cli.terraform_apply
    from_file = Config.from_file.__func__

    def remembered(cls: Any, path: Any) -> Any:
        cls.latest = from_file(cls, path)
        return cls.latest

    def applied(auto_approve: bool) -> None:
        apply(auto_approve)
        config = Config.latest
        wait = getattr(config.operator._load_operator_module(), "wait", None)
        if wait is not None:
            _, outputs, _ = bentoctl.utils.terraform.terraform_run(
                ["output", "-json"], return_output=True
            )
            with _as_bentoctl_error():
                wait(json.loads(outputs), config.operator_spec)

    Config.from_file = classmethod(remembered)
    bentoctl.cli.terraform_apply = applied


def working_build() -> None:
    bentoctl.cli.generate_deployable_container = build
    bentoctl.cli.tag_docker_image = _reported(containers.tag)
    bentoctl.cli.push_docker_image_to_repository = _reported(
        lambda repository, username, password: push(repository, username, password)
    )


def push(image: str, user: str, password: str) -> None:
    """Push an image that is not there yet: tags never change, and a Bento's version neither."""
    if ecr.has(image):
        print(f"{image} is in the repository already: nothing is pushed")
        return
    containers.push(image, user, password)


def build(tags: list[str], deployment_config: Any, **options: Any) -> None:
    """In the place of bentoctl.docker_utils.generate_deployable_container."""
    from bentoml._internal.container import construct_containerfile  # slow to import

    flags = build_flags(options)
    _suited(deployment_config)
    with construct_containerfile(deployment_config.bento, enable_buildkit=False) as (context, _):
        deployable = deployment_config.operator.create_deployable(
            bento_path=context,
            destination_dir=context,
            bento_metadata={"tag": str(deployment_config.bento.tag)},
        )
        dockerfile = Path(deployable) / DOCKERFILE
        dockerfile.write_text(two_stages(dockerfile.read_text()))
        _reported(containers.build)(deployable, str(dockerfile), tags, flags)


def _suited(deployment_config: Any) -> None:
    model = getattr(deployment_config.operator.operator_config, "OPERATOR_SPEC", None)
    if model is not None:
        given = deployment_config.operator_spec
        spec = model.model_validate({k: v for k, v in given.items() if k in model.model_fields})
        if problem := mismatch(deployment_config.bento.info.labels, spec.needs):
            raise BentoctlException(problem)


def build_flags(options: dict[str, Any]) -> list[str]:
    """bentoctl's build options as flags that docker, podman and buildah share.

    Raises:
        BentoctlException: an option that only docker buildx knows.
    """
    for name in ("allow", "build_context", "builder", "cache_to", "output", "push"):
        if options.get(name):
            flag = name.replace("_", "-")
            raise BentoctlException(f"--{flag} is not supported; build, then push by other means")
    pairs = [
        f"--build-arg={key}={value}" for key, value in (options.get("build_args") or {}).items()
    ]
    lists = [f"--platform={one}" for one in options.get("platform") or ()]
    lists += [f"--cache-from={one}" for one in options.get("cache_from") or ()]
    lists += [f"--target={options['target']}"] if options.get("target") else []
    switches = [f"--{n.replace('_', '-')}" for n in ("no_cache", "pull") if options.get(n)]
    return pairs + lists + switches


def _reported(function: Callable[..., None]) -> Callable[..., None]:
    """The function, its ContainerError turned into bentoctl's own kind of error."""

    def call(*arguments: Any, **named: Any) -> None:
        with _as_bentoctl_error():
            function(*arguments, **named)

    return call


@contextlib.contextmanager
def _as_bentoctl_error() -> Any:
    try:
        yield
    except (containers.ContainerError, Unready) as error:
        raise BentoctlException(str(error)) from error
