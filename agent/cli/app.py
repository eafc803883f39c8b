"""`hearing-room`: the commands, each a thin door to the module that does the work."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from agent import __version__
from agent.cli import output
from agent.model import AgentError, ConfigError
from agent.settings import DEFAULT_PATH

app = typer.Typer(
    help="Watches the room of an online hearing, says in time whether it is ready, never records.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="The configuration of the room.", no_args_is_help=True)
app.add_typer(config_app, name="config")
profiles_app = typer.Typer(
    help="What is known about models of devices, boxes and relay boards.", no_args_is_help=True
)
app.add_typer(profiles_app, name="profiles")

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Language = Annotated[
    Optional[Literal["vi", "en"]],  # noqa: UP045 (typer reads it at run time on 3.11)
    typer.Option("--language", "-l", help="Language of the texts; default: the room's."),
]
Config = Annotated[Path, typer.Option("--config", "-c", help="The room's file.")]


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; wrong usage is 64, wrong configuration 78."""
    try:
        result: Any = app(list(arguments), prog_name="hearing-room", standalone_mode=False)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return output.CONFIG
    except AgentError as error:
        print(f"hearing-room: {error}", file=sys.stderr)
        return output.UNKNOWN
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # Typer carries its own copy of click: its usage errors are known by what they can do.
        if not hasattr(error, "format_message"):
            raise
        print(f"hearing-room: {error.format_message()}", file=sys.stderr)
        print("Try 'hearing-room --help'.", file=sys.stderr)
        return output.USAGE
    return result if isinstance(result, int) else 0


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    config: Config = DEFAULT_PATH,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], typer.Option(help="How much is said.")
    ] = "info",
    services: Annotated[
        bool, typer.Option(help="On an installed box: systemd keeps the other processes.")
    ] = False,
) -> int:
    """Watch the room until told to stop: the daemon."""
    from agent.cli import run as daemon

    extra = ["--services"] if services else []
    return daemon.main(["--config", str(config), "--log-level", log_level, *extra])


@app.command("try")
def try_(
    seconds: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--seconds", min=1, help="Stop by itself after so long."),
    ] = None,
    language: Language = None,
    keep_virtual: Annotated[
        bool, typer.Option("--virtual", help="Use the virtual room even where hardware is.")
    ] = False,
) -> int:
    """Run here and now, without installing: a broker of its own, the real devices that are found,
    virtual ones for what is missing. Ctrl-C leaves nothing behind."""
    from agent.cli import trial

    return trial.run(seconds=seconds, language=language, only_virtual=keep_virtual)


@app.command()
def check(
    what: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            metavar="[DEVICE|SOURCE]...",
            help="A device of the running agent, or a source such as camera:/dev/video0, "
            "camera:clip.mp4?fps=30, microphone:hw:1, display:HDMI-A-1, network, host.",
        ),
    ] = None,
    loop: Annotated[
        bool,
        typer.Option(
            "--loop", help="Have loudspeakers with loop_test = true make a short, quiet sound."
        ),
    ] = False,
    as_json: Json = False,
    language: Language = None,
) -> int:
    """Measure once and say what is wrong."""
    from agent.cli import check as checking

    return checking.run(what or [], as_json=as_json, language=language, loop=loop)


@app.command()
def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow until Ctrl-C.")] = False,
    as_json: Json = False,
    language: Language = None,
) -> int:
    """What the running agent knows; unknown (3) when it is dead or silent."""
    from agent.cli import status as showing

    return showing.run(as_json=as_json, watch=watch, language=language)


@app.command()
def codes(
    pattern: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="[KIND|CODE]", help="Only these, e.g. camera or camera.frozen."),
    ] = None,
    as_json: Json = False,
    language: Language = None,
) -> int:
    """Every code with its level, meaning and steps."""
    from agent.cli import codes as listing

    return listing.run(pattern, as_json=as_json, language=language)


@app.command()
def adopt(
    target: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--output", "-o", help="Write here instead of to standard output."),
    ] = None,
    site: Annotated[str, typer.Option(help="Site, the first segment of every topic.")] = "site",
    room: Annotated[str, typer.Option("--room", help="Id of the room.")] = "room-01",
    baseline: Annotated[
        bool, typer.Option("--baseline", help="The room is good: have the agent remember how good.")
    ] = False,
    device: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--device", help="With --baseline: only this device."),
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="With --baseline: also what is not in order.")
    ] = False,
    as_json: Json = False,
    language: Language = None,
) -> int:
    """Write a room.toml from what is plugged in; or, with --baseline, have the running agent
    remember what its devices give in a room that a person has found good."""
    if baseline and target is None:
        from agent.cli import baseline as commissioning

        return commissioning.run(device, anyway=anyway, as_json=as_json, language=language)
    if baseline or device or anyway:
        message = "--device and --anyway go with --baseline, and --output does not"
        print(f"hearing-room adopt: {message}", file=sys.stderr)
        return output.USAGE
    from agent.cli import adopt as adopting

    return adopting.run(target, site=site, room=room, as_json=as_json)


@app.command()
def command(
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="[NAME]", help="What to do; without it the commands are listed."),
    ] = None,
    words: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(metavar="[ARG=VALUE]...", help="E.g. relay=cam-power on=true"),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; kept in the record.")] = "",
    as_json: Json = False,
) -> int:
    """Have the running agent do something: the same commands as over MQTT."""
    from agent.cli import command as commanding

    return commanding.run(name, words or [], reason=reason, as_json=as_json)


@app.command()
def doctor(
    config: Config = DEFAULT_PATH,
    program: Annotated[
        bool,
        typer.Option("--program", help="Only this version itself: before it takes over."),
    ] = False,
    as_json: Json = False,
    language: Language = None,
) -> int:
    """The box itself: rights, confinement, clock, watchdog; each line with its fix."""
    from agent.cli import doctor as examining

    return examining.run(config, as_json=as_json, language=language, program=program)


@app.command()
def card(
    config: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--config", "-c", help="The room's file; default: this box's, if it has one."),
    ] = None,
    pdf: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--pdf", help="Write one page of A4 here (`-`: standard output)."),
    ] = None,
    general: Annotated[bool, typer.Option("--general", help="The card of no room at all.")] = False,
    contact: Annotated[str, typer.Option(help="Name and number of the technician.")] = "",
    as_json: Json = False,
    language: Annotated[
        Optional[Literal["vi", "en"]],  # noqa: UP045
        typer.Option("--language", "-l", help="Only this one; default: both, Vietnamese first."),
    ] = None,
) -> int:
    """What the lights and the button mean: the card beside the box, to read or to print."""
    from agent.cli import card as printing

    return printing.run(
        config, pdf=pdf, general=general, contact=contact, as_json=as_json, language=language
    )


@app.command("may-upgrade")
def may_upgrade(as_json: Json = False) -> int:
    """Whether this box may be worked on: 0, or 75 while a hearing runs or is near."""
    from agent.cli import may_upgrade as asking

    return asking.run(as_json=as_json)


@config_app.command("netcams", hidden=True)
def config_netcams(
    output_folder: Annotated[Path, typer.Option("--output", "-o", help="Write here.")],
    templates: Annotated[Path, typer.Option(help="The folder of the templates.")],
    file: Annotated[Path, typer.Argument(help="The room's file.")] = DEFAULT_PATH,
) -> int:
    """Write the units of cameras on the network, for install.sh."""
    from agent.cli import netcams

    return netcams.run(file, templates, output_folder)


@config_app.command("check")
def config_check(
    file: Annotated[Path, typer.Argument(help="The file to check.")] = DEFAULT_PATH,
    as_json: Json = False,
) -> int:
    """Validate a room.toml; all its mistakes in one message."""
    from agent import settings
    from agent.hands import plan

    try:
        room = settings.load(file)
        plan.of(room)
    except ConfigError as error:
        if not as_json:
            raise
        head, *mistakes = str(error).split("\n  ")
        print(json.dumps({"ok": False, "mistakes": mistakes or [head]}, ensure_ascii=False))
        return output.CONFIG
    ids = [d.id for d in room.devices]
    if as_json:
        print(json.dumps({"ok": True, "room": room.id, "devices": ids}, ensure_ascii=False))
    else:
        print(f"{file}: in order; room {room.id} at {room.site}, devices {', '.join(ids)}")
    return 0


@config_app.command("schema")
def config_schema() -> int:
    """Print the JSON Schema of room.toml."""
    from agent import settings

    print(json.dumps(settings.schema(), indent=2, ensure_ascii=False))
    return 0


@profiles_app.command("list")
def profiles_list(
    plugged: Annotated[
        bool,
        typer.Option("--plugged", help="The plugged-in USB devices, with the profile of each."),
    ] = False,
    as_json: Json = False,
    language: Language = None,
) -> int:
    """All profiles, and which of them are about something that is plugged in."""
    from agent.cli import profiles

    return profiles.list_(only_plugged=plugged, as_json=as_json, language=language)


@profiles_app.command("show")
def profiles_show(
    profile: Annotated[str, typer.Argument(metavar="ID", help="As `profiles list` names it.")],
    as_json: Json = False,
    language: Language = None,
) -> int:
    """Everything that is known about one model, each fact with its source."""
    from agent.cli import profiles

    return profiles.show(profile, as_json=as_json, language=language)


@profiles_app.command("check")
def profiles_check(
    paths: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Argument(metavar="[FILE|FOLDER]...", help="Default: the ones of this version."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Validate profiles; all their mistakes in one message."""
    from agent.cli import profiles

    return profiles.check(paths or [], as_json=as_json)
