"""Settings that cannot work end the start with one line, before anything is loaded."""

from __future__ import annotations

import os
from pathlib import Path

from api.http import keys
from runnables.errors import ConfigurationError
from runnables.runnable import check_models
from runnables.settings import Settings

#: settings that name a folder, which is read
FOLDERS = (
    "lora_dir",
    "controlnet_dir",
    "embeddings_dir",
    "upscaler_dir",
    "models_dir",
    "checkpoint_config",
    "preview_vae",
)


def settings_or_exit() -> Settings:
    """Return the settings. Where they cannot work, end the process with one line and code 1."""
    try:
        settings = Settings.from_environment()
        check(settings)
    except ConfigurationError as error:
        raise SystemExit(error.message) from None
    return settings


def check(settings: Settings) -> None:
    """Check what the settings name, without loading any of it.

    Raises:
        ConfigurationError: It names the setting, and says why it cannot work.
    """
    keys.read(settings.api_keys)
    if settings.webhook_secret:
        from api.jobs import webhooks  # late: it is much to import for a host's supervisor

        webhooks.keys(settings.webhook_secret)
    if settings.c2pa_cert or settings.c2pa_key:
        from runnables.images import provenance  # late, too

        provenance.check(settings)
    check_models(settings)
    for name in FOLDERS:
        if folder := getattr(settings, name):
            _check_folder(f"SD_{name.upper()}", Path(folder).expanduser(), os.R_OK)
    jobs = settings.jobs_folder
    there = next(path for path in (jobs, *jobs.absolute().parents) if path.exists())
    _check_folder(f"SD_JOBS_DIR={jobs}", there, os.R_OK | os.W_OK)


def _check_folder(setting: str, folder: Path, rights: int) -> None:
    if not folder.is_dir():
        raise ConfigurationError(f"{setting}: there is no folder {folder}")
    if not os.access(folder, rights | os.X_OK):
        wanted = "read and written" if rights & os.W_OK else "read"
        raise ConfigurationError(f"{setting}: {folder} cannot be {wanted}")
