"""Ketter's engine: moves a tree from one host to another and proves that it arrived.

This is its whole public face; nothing here needs Django or a database. Names
are imported when they are first used, so that the command line can have the
connection made before everything is loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.cleanup import discard
    from engine.connection import probe
    from engine.errors import (
        AgentFailed,
        AgentLost,
        AuthFailed,
        BadRequest,
        Cancelled,
        ConnectError,
        ConnectionLost,
        ConnectionRefused,
        DeliveredGone,
        EngineError,
        HostKeyChanged,
        HostKeyUnknown,
        HostUnreachable,
        Interrupted,
        NoPython,
        NoSpace,
        Overlap,
        PathOutsideRoot,
        PermissionDenied,
        Replaced,
        RootMissing,
        SourceChanged,
        SourceMissing,
        Stalled,
        TargetBusy,
        TargetExists,
        VerifyFailed,
    )
    from engine.helper import Helper
    from engine.rules import check_filters
    from engine.ssh import fetch_host_key, fingerprint, sweep
    from engine.transfer import dry_run, run
    from engine.types import (
        Endpoint,
        EntryFailure,
        HardLinks,
        HostKey,
        Mode,
        Observer,
        OnConflict,
        ParcelKind,
        ParcelReport,
        ParcelState,
        Phase,
        Probe,
        Progress,
        Report,
        Request,
        SilentObserver,
        SshAccess,
        Strategy,
        Symlinks,
        Verify,
        display_path,
    )

_MODULES = {
    "cleanup": ("discard",),
    "connection": ("probe",),
    "ssh": ("fetch_host_key", "fingerprint", "sweep"),
    "helper": ("Helper",),
    "rules": ("check_filters",),
    "transfer": ("dry_run", "run"),
}


def __getattr__(name: str) -> Any:
    """A public name, from the module that has it."""
    if name not in __all__:
        raise AttributeError(name)
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"engine.{module}"), name)
    for module in ("errors", "types"):
        found = getattr(import_module(f"engine.{module}"), name, None)
        if found is not None:
            return found
    raise AttributeError(name)


__all__ = [
    "AgentFailed",
    "AgentLost",
    "AuthFailed",
    "BadRequest",
    "Cancelled",
    "ConnectError",
    "ConnectionLost",
    "ConnectionRefused",
    "DeliveredGone",
    "Endpoint",
    "EngineError",
    "EntryFailure",
    "HardLinks",
    "Helper",
    "HostKey",
    "HostKeyChanged",
    "HostKeyUnknown",
    "HostUnreachable",
    "Interrupted",
    "Mode",
    "NoPython",
    "NoSpace",
    "Observer",
    "OnConflict",
    "Overlap",
    "ParcelKind",
    "ParcelReport",
    "ParcelState",
    "PathOutsideRoot",
    "PermissionDenied",
    "Phase",
    "Probe",
    "Progress",
    "Replaced",
    "Report",
    "Request",
    "RootMissing",
    "SilentObserver",
    "SourceChanged",
    "SourceMissing",
    "SshAccess",
    "Stalled",
    "Strategy",
    "Symlinks",
    "TargetBusy",
    "TargetExists",
    "Verify",
    "VerifyFailed",
    "check_filters",
    "discard",
    "display_path",
    "dry_run",
    "fetch_host_key",
    "fingerprint",
    "probe",
    "run",
    "sweep",
]
